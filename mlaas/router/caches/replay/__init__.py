"""An answer in both of its forms: whole, and as a stream of events, in the API that the caller speaks.

The cache keeps the whole form only. `whole_from_stream` makes it of a stream that went by, `stream_from_whole` makes a
stream of it again: few events, well formed, with the same content. Virtual models stream their answers through it too.
"""
