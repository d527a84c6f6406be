"""What users ask of the scheduler, as YAML, as flags and as Python, read into one vocabulary.

spec         a workload as its user states it, checked field by field
queues_file  queues, quotas and priority classes: `cluster/queues.yaml`

Nothing here knows a clock, a store or a cluster.
"""
