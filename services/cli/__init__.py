"""The aquiline command: the only place that composes services."""
