"""The gateway: one OpenAI-compatible API over the cluster's own models and external providers."""
