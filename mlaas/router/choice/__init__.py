"""Where a request goes: one decision over the cluster's own replicas and outside providers, by live load and dollars.

`decide(snapshot)` is pure, total and carries its reason; `flow` is the generator of attempts, waits and hedges that
follows from it. `fleet` holds what is live and freezes it into a snapshot; `admission` holds the queue in front of
local models; everything else here is a part of one of the four. A decision is logged as data and can be made again.
"""
