"""What operators watch: Prometheus metrics of gateway and scheduler, OpenTelemetry traces of the gateway.

`definitions` holds every metric's name, labels and buckets in one place, so that dashboards, alerts and code agree.
Recording a request is a few additions to plain numbers; `prometheus_client` sees them when somebody scrapes.

Each gateway replica counts for itself. Behind one ingress a scrape would reach one replica at random, and its counters
would seem to jump; so each replica also listens on a port of its own and writes it to a file that Prometheus' file
service discovery reads (`exporter`). Sums over replicas are Prometheus' work. The scheduler, one process, counts in
`meters` and is reached the same way.

`tracing` makes one trace for each request: a span for the request, and one below it for each attempt at an upstream.
No metric and no span carries a prompt, an answer or a key.
"""
