"""Ray Serve applications: each `build(args)` wires one process in one visible place."""
