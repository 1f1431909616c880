"""`aquiline shadow`: compares what a candidate decided in run mode `shadow` with what `live` decided on the same records."""

from services.cli.shadow.command import app

__all__ = ["app"]
