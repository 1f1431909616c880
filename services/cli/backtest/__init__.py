"""`aquiline backtest`: the fusion worker on a virtual clock, its signals judged bar by bar, and the report on them."""

from services.cli.backtest.command import app

__all__ = ["app"]
