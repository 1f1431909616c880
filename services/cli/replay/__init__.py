"""`aquiline replay`: any decision's prompt again from log and audit, its hash checked, shown, asked anew."""

from services.cli.replay.command import app

__all__ = ["app"]
