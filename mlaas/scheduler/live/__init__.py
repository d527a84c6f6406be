"""The scheduler that runs: load, decide, apply, with the store as its record.

types        what holders of gangs are told, and what they tell
lifecycle    pure: the states of a workload and what leads from one to the next
ports        what is needed of a cluster, for Ray and for tests
entries      what is kept in memory of each workload, and of what is to be written and done
roster       all workloads that have not ended, in line with ledger, holdings and timers
holdings     what leases hold in fact, while the ledger has what is booked
booking      a decision, turned into bookings and signals
writer       many changes in one transaction, fenced; the cluster is changed only after it
executor     carries out on the cluster what the store knows
sightings    pure: what a look at the cluster says about the leases
loop         look, take in, decide, book, write, carry out
submission   from a spec to workloads, all or nothing, and only once
queue_rules  the queues in force
recovery     takes up what the store says and the cluster shows
retention    how long history is kept
holders      the verbs of whoever holds a gang
service      all verbs, and the life of the whole
clock        time for records, and time for deadlines

Only `executor` and `loop` touch the cluster. Only `writer` writes workloads; beside it `queue_rules` stores queues, and
`retention` removes what is old. What to do is `mlaas.scheduler.decision.cycle.decide`.
"""
