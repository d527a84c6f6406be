"""The one way out to upstreams: pooled HTTP/1.1 connections of our own, without redirects, cookies or proxies.

`client` is what the router sees, `pool` keeps connections and decides which addresses may be reached, `http1` reads and
writes one connection.
"""
