"""One decision: who starts, shrinks, grows, moves and yields, and who waits for what.

    ordering     the scheduling policies: who goes first
    quota        guarantees, borrowing and lending in hierarchical cohorts
    fairness     dominant shares with decaying usage
    placement    where a gang fits, with the least fragmentation
    yielders     what runs, as far as it may be asked to yield or move
    preemption   who shrinks or yields for it: borrowed first, least valuable first, never within its minimum runtime
    moving       who goes on elsewhere, so that idle GPUs come together
    backfill     the reservation of the first that cannot start, and what may pass it
    elastic      who grows into idle capacity
    cycle        one decision out of all of these

Everything here is pure: what it depends on comes in with the snapshot.
"""
