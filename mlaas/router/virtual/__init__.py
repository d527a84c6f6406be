"""Models that are made of other models: cascades, ensembles and pipelines, written in the router's file.

A virtual model asks its members through the `Ask` seam, one chat each, so that every one of these goes the usual way:
routing, limits, prices, failover. What comes out is one chat completion with the usage and the cost of all asks, and a
reason that tells the path. `Tally` knows what has been spent at any moment, also when a call fails or is cancelled
halfway. A virtual model has its answer whole before it streams: the checks, votes and steps before the last one need
all of it, so callers that stream get the finished answer as a short stream.
"""
