"""The global scheduler: who runs where, and why the others wait.

`cycle.decide(snapshot, policy) -> Decision` is the one decision of the package. The live scheduler, a dry run,
`explain` and the simulator all call it, so they cannot disagree. It is pure: the clock, the cluster, the queues and all
history come in with the snapshot, and each action goes out with its reason.

    types        the frozen vocabulary: Workload, Gang, Node, Queue, and the actions of a Decision
    cluster      nodes and their free resource cells, as arrays
    tables       workloads that wait and run, as columns
    ledger       the state that snapshots are taken of: what waits, what runs, what was used
    snapshot     the world at one moment, as a decision sees it
    estimates    what is believed of a runtime: a stated estimate, corrected by history and by the time already run
    fairness     dominant shares with decaying usage
    quota        guarantees, borrowing and lending in hierarchical cohorts
    ordering     the scheduling policies: who goes first
    placement    where a gang fits, with the least fragmentation
    yielders     what runs, as far as it may be asked to yield or move
    preemption   who shrinks or yields for it: borrowed first, least valuable first, never within its minimum runtime
    moving       who goes on elsewhere, so that idle GPUs come together
    backfill     the reservation of the first that cannot start, and what may pass it
    elastic      who grows into idle capacity
    cycle        one decision out of all of these
    validation   what is refused at the door
    shortage     what a gang lacks: quota, or room on nodes
    turn         who goes before it, and why
    forecast     when it should start: the same decision played forward on what is believed of runtimes
    remedies     what would start it now, each tried on a world so changed
    explain      these four as one answer
    plan         the same for what is not submitted yet
    view         nodes, gangs, queues, tenants and fragmentation at a glance
    recording    a snapshot to and from JSON, so that a decision can be replayed
    metrics      what operators watch, counted from decisions
    simulate/    traces replayed through the same decision on a virtual clock

Amounts are exact: one GPU is 10,000 units, as in Ray's own fixed-point arithmetic, and a fraction of a GPU lies on
one device.
"""
