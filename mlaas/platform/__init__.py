"""One instance as a whole: start, stop, heal and inspect its processes."""
