"""Serving and training share machines: how many replicas each deployment should have now.

types      the share of a deployment (floor, ceiling, SLO), what is seen of its load, and the wish that comes of it
decide     pure: load in, wanted replicas out, up at once and down only after a hold
plan       pure: wishes and leases in, what to book, apply and give back out
ports      what the loop needs of scheduler, router and Ray Serve
service    the loop

Each replica is one workload of kind `serve`: a gang of one worker, at high priority, not preemptible as long as it is
one of its deployment's floor. A raised wish is a submission and a lowered one gives a gang back, so who shrinks or
yields for serving, and who gets the machines afterwards, is decided by `decision.cycle` as for everybody else.
Replicas need not start together, and a lost node takes only the replicas that were on it: hence a gang for each, not
one elastic gang for all.
"""
