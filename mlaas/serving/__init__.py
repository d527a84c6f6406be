"""vLLM replicas on Ray Serve, and the registry of the endpoints they answer at."""
