"""What a key may use, exact across gateway replicas: requests and tokens in a window, concurrency, and money.

Each limit is a *pool* of whole units: requests, tokens, slots, nano-dollars. The *ledger* (`actor.py`, one Ray actor
for each shard of keys) divides pools among the replicas of the gateway; each replica (`meter.py`) takes from its own
*share* without asking anybody, and asks for more, or gives back what lies idle, in the background.

Why no clock has to agree with another. The ledger does not count uses, it counts shares: their sum never exceeds the
limit. A replica keeps its own exact window over its share: a unit used now is usable again 60 s later, *there*. So in
any 60 s the replicas together use no more than the sum of their shares. A slot of concurrency is usable again when its
request ends; money never is, until the period ends.

Why no message can be lost or counted twice. `granted` (written by the ledger), `returned` and `spent` (written by the
replica) only ever grow, and each message carries their totals. A share is `granted - returned`.

Who waits. Requests at a replica are served in the order in which they came, and replicas take turns: one that waits for
money that another one uses gets what is set free there next. A request whose bound is more than the budget has left
gets a part of it, and its answer is capped to what that pays.

What happens when something dies.

- A replica: its slots are free when its lease ends, its rates a window later. Money that it held and did not report is
  kept out of the budget for the period: it may have been spent. A replica holds about what it needs for a second.
- The ledger: grants of money are in the store before a replica hears of them, so the next ledger starts from them.
  Windows and slots are soft: the next ledger learns from the replicas what they hold, and grants nothing before each
  lease that the one before it gave has been renewed or has ended. Only when a replica dies together with the ledger
  are its last 60 s forgotten. Two ledgers that take each other for dead take turns in the store, and the one whose
  turn is over grants no money before it has read what the other wrote.
- The store: windows go on. Money is spent from what replicas hold, and no more is granted. Nothing is lost: totals are
  sent again until they are written.
- The network: a replica that hears nothing for `LEASE_S` refuses keys with limits on rates or concurrency.
"""
