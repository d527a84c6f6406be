"""The control plane over HTTP: `/api/v1` of the gateway, and the client that speaks to it.

ports            what the routes need of a scheduler and of a store of packages
workload_routes  submit, plan, list, look at, explain, follow, cancel workloads
cluster_routes   the cluster as it is used, and its queues
package_routes   working directories of commands
bodies           requests' bodies, JSON or YAML
log_files        what commands have printed, read piece by piece
client           the same from the other side: what the command line and Python programs call

A key sees and touches the workloads of its own tenant; an administrator's key those of all, and the queues. The routes
decide nothing: they read, ask the scheduler and write down what it says. `serve_apps/gateway.py` mounts them.
"""
