"""What a request costs and what is known of it afterwards: prices, the bill, the journal, the way to the ledger.

Money is exact: whole picodollars inside, `Decimal` outside. A bill bounds and reserves before the request goes out and
is settled when it is over; the limits themselves are kept by `mlaas.router.limits`.
"""
