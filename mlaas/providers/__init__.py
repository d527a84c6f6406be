"""One Protocol for model providers, one file for each."""
