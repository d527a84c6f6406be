"""MLaaS: one Ray cluster, one scheduler, one API for machine learning."""
