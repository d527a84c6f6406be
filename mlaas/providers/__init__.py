"""One Protocol for model providers, one file for each.

The caller's dialect is OpenAI's. A provider whose wire format is the same passes bodies through: only the model's name
and the key change. The others translate the request, the answer, each event of a stream, and errors. Providers hold no
connection and send nothing: they turn values into values, so the router owns every timeout, retry and connection in one
place.
"""
