"""Which nodes the cluster should have: what an autoscaler is asked for, and which nodes are emptied.

types        node types, what they cost and how far they may grow
grown        the cluster as it would be with more nodes
demand       pure: gangs that wait for nodes in, nodes to ask for out
consolidate  pure: cheap gangs that are moved so that a node becomes idle
service      the loop that publishes the demand

Ray's autoscaler brings what `request_resources` asks for, which is one slot for the whole cluster: the scheduler owns
it. The slot says what the cluster as a whole should hold, not what is missing, so what runs is part of each demand,
pinned to its node. A node that no demand names is idle, and the autoscaler drains it after its `idle_timeout_minutes`.
"""
