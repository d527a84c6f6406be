"""Settings of all tests."""

from hypothesis import settings

# A busy machine is no failure, and the same commit gives the same result everywhere.
settings.register_profile("mlaas", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("mlaas")
