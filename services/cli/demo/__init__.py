"""`aquiline demo`: the whole path, from candles to accountable signals, on real market data and a simulated engine."""

from services.cli.demo.command import app

__all__ = ["app"]
