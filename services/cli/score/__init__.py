"""`aquiline score`: says whether the signals were any good."""

from services.cli.score.command import app

__all__ = ["app"]
