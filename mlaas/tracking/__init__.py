"""Runs and registered models, through MLflow's server.

`runs` records what a training run did: parameters, metrics of each step, artifacts. `registry` names its result: a
registered model is a folder of plain files (safetensors, JSON) with a version, aliases and tags that lead back to
run, data and code. No MLflow flavour is used, since those write pickles: a version is `log_artifacts` and
`create_model_version`, nothing else.
"""
