"""How a running process gets a gang: `with lease(spec) as gang:`.

holder       the loop behind a lease: heartbeats, the signal to yield, giving back
gang         what the holder works with: nodes, placement group, size, deadline to yield by

A holder that dies loses its gang: its heartbeats end, and the scheduler takes back what it held.
"""
