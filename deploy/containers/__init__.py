"""Docker for tests: an engine and a Compose plug-in of the repository's own where the machine has none, and base images without a registry.

Everything is kept in `.cache/containers`, so that only the first run is slow.
"""
