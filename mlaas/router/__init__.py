"""The gateway: one API over the cluster's own models and outside providers, deciding by load and money at once.

The way of a request, and where each step lives:

    app, request, gate        HTTP in; who calls; what is asked, in which API (`dialects`)
    front, responses, batches what is kept beside the answer
    dispatch                  what the model's name stands for (`catalog`, `virtual`), the cache (`caches`)
    money.billing, limits     what it may cost and use, reserved before and settled after
    exchange                  one request's attempts: `choice` says where, `fit` makes it fit, `egress` carries it
    attempt, reply            the answer, whole or streamed, back in the caller's API
    record, money.journal     what it was, for the ledger, metrics and traces

`calls` holds all of it for the configuration in force; `service` runs it, with its loops. Modules named after a
decision are pure: values in, values out.
"""
