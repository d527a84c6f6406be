"""Files that callers upload, and files that batches write: `/v1/files`.

Records lie in the store, contents in one folder under `MLAAS_HOME`, which all gateway replicas have to share.
"""
