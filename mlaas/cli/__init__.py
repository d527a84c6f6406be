"""The `mlaas` command."""
