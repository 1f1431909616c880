"""Play history to the worker on a virtual clock, and hold what its signals would have made."""
