"""The control plane over HTTP: `/api/v1` of the gateway, and the client that speaks to it.

ports            what the routes need of a scheduler and of a store of packages
workload_routes  submit, plan, list, look at, explain, follow, cancel workloads
cluster_routes   the cluster as it is used, and its queues
package_routes   working directories of commands; package_folder keeps them
bodies           what requests say, in JSON or YAML
answers          what the scheduler says, as callers see it
visibility       whose workloads a caller sees
log_files        what commands have printed, read piece by piece
mount            all routes together
client           the other side: what the command line and Python programs call
following        a workload followed until it has ended
packing          a working directory as an archive

A key sees and touches the workloads of its own tenant; an administrator's key those of all, and the queues. The routes
decide nothing: they read, ask the scheduler and write down what it says. `serve_apps/gateway.py` mounts them.
"""
