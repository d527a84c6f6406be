"""The scheduler on Ray: one detached actor that leads, a launcher on each node, and placement groups.

cluster      nodes, placement groups and outside use, as `live.ports.ClusterPort`
launcher     starts the commands of one node on warm workers, keeps their logs, and ends them
actor        the service as a detached Ray actor
client       how gateway, drivers and platform reach it

Nothing of the rest of the package imports Ray.
"""
