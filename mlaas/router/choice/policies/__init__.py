"""How an alias orders its candidates: one file per routing policy, one Protocol, one conformance suite.

A policy ranks and does nothing else. Which candidates can take the request at all is settled before (`sift`), and
whether traffic may overflow to paid targets is settled after (`burst`), so that no policy can get either wrong. It is
given the candidates in the order of the route, the replicas of one target by load, and must return each exactly once.
"""
