"""How a running process gets a gang: `with lease(spec) as gang:`.

holder       `lease`: asks until it is placed, and gives back
gang         what the holder works with: nodes, placement group, size, the request to yield
hold         one lease, watched in a thread: heartbeats and signals
verbs        what is needed of a scheduler, for the real one and for tests

A holder that dies loses its gang: its watch ends, and the scheduler takes back what it held. A scheduler that dies is
waited for, and its successor finds the leases in the store.
"""
