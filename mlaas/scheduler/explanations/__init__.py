"""Why it waits, when it starts, what would start it now: told by the same decision that runs the cluster.

    shortage     what a gang lacks: quota, or room on nodes
    turn         who goes before it, and why
    forecast     when it should start: the decision played forward on what is believed of runtimes
    remedies     what would start it now, each tried on a world so changed
    explain      these four as one answer
    plan         the same for what is not submitted yet
    view         nodes, gangs, queues, tenants and fragmentation at a glance
    recording    a snapshot to and from JSON, so that a decision can be replayed

Everything here is pure, and none of it changes the snapshot that it looks at.
"""
