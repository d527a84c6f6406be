"""Traces replayed through the scheduler's own decision, on a virtual clock.

    traces    job traces: philly, swf, csv
    machines  the cluster: nodes x GPUs, or a cluster file with node groups and queues
    replay    the event loop: arrivals and ends, decide, apply
    report    completion times, waits, utilisation, fairness, what preemption cost
    plot      the timeline as a picture

The policy never sees a true runtime. It sees estimates that are off by a log-normal factor, and learns from what has
finished; each preemption costs its restart on all GPUs of the gang. Only `srsf-oracle` is given true runtimes and
free preemption, as the bound to measure against.
"""
