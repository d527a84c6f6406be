"""The scheduler that runs: load, decide, apply, with the store as its record.

lifecycle    the states of a workload and what leads from one to the next
ports        what the service needs of a cluster, for Ray and for tests
service      the loop, and the verbs that users and holders of gangs call

Only the service touches the world, through `ports` and the store; what to do is `mlaas.scheduler.cycle.decide`.
"""
