"""Runs and the model registry, through MLflow's server."""
