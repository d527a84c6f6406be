"""The global scheduler: who runs where, and why the others wait.

`decision.cycle.decide(snapshot, policy) -> Decision` is the one decision of the package. The live scheduler, a dry run,
`explain` and the simulator all call it, so they cannot disagree. It is pure: the clock, the cluster, the queues and all
history come in with the snapshot, and each action goes out with its reason.

    types         the frozen vocabulary: Workload, Gang, Node, Queue, and the actions of a Decision
    cluster       nodes and their free resource cells, as arrays
    tables        workloads that wait and run, as columns
    holdings      what each running workload holds, as entries
    ledger        the state that snapshots are taken of: what waits, what runs, what was used
    snapshot      the world at one moment, as a decision sees it
    estimates     what is believed of a runtime: a stated estimate, corrected by history and by the time already run
    validation    what is refused at the door
    wording       amounts and times, for people
    metrics       what operators watch, counted from decisions
    decision/     one decision: who starts, shrinks, grows, moves and yields
    explanations/ why it waits, when it starts, what would start it now
    simulate/     traces replayed through the same decision on a virtual clock
    requests/     what users ask, as YAML, flags and Python; queues and their file
    live/         the scheduler that runs: load, decide, apply, with the store as its record
    on_ray/       the same on Ray: actor, launchers, placement groups
    leases/       how a running process gets a gang
    arbitration/  how many replicas serving should have
    autoscaling/  which nodes to ask for, and which to empty

Amounts are exact: one GPU is 10,000 units, as in Ray's own fixed-point arithmetic, and a fraction of a GPU lies on
one device.
"""
