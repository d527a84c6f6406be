"""One instance as a whole: start, stop, heal and inspect its processes.

The platform is a list of parts (`parts.py`): each one can be probed and started, and nothing else. `up` starts the
parts whose probe fails, so running it again heals whatever died; `status` and `doctor` show the same probes. What is to
be served is read from the store and put to Ray Serve as one declarative config (`serve.py`). Every process carries the
instance's mark in its environment (`processes.py`), so `down` ends exactly the processes of this instance.
"""
