"""Batches of requests, answered by any model of the router in the background: `/v1/batches`.

Each line of the input is asked like any other request of the key that made the batch. Answers go to the store as they
come, and to the output and error file at the end, in the order of the input and one for each `custom_id`. After a
crash another worker takes the batch over as soon as its lease has run out, and asks only the lines that have no answer
yet: a line that was under way when the worker died is asked again, and answered once in the output.
"""
