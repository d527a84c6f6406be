"""Answers kept for requests that come again, for the aliases that ask for it.

`exact` knows the same request, `semantic` one that means the same, `answering` puts both in front of the router, and
`replay` holds an answer in both of its forms: whole, and as a stream.
"""
