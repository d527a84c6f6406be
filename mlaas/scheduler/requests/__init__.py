"""What users ask of the scheduler, as YAML, as flags and as Python, read into one vocabulary.

spec           a workload as its user states it
document       workloads as YAML and JSON, read and written: `parse_spec`, `encode_spec`
quantities     times, sizes, numbers of workers and indexes as people write them
fields         types of fields that documents have in common
queues         how the cluster is divided
queues_file    the same as a document: `cluster/queues.yaml`
queue_changes  what differs between two of them
admission      a workload that is asked for, against the queues, the cluster and the clock

Nothing here knows a clock, a store or a cluster: what is needed of them is passed in.
"""
