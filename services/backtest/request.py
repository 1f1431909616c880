"""The options of a backtest as plain values, which its checkpoint stores so that it can be resumed."""

from __future__ import annotations

from dataclasses import dataclass

from services.feeds.stamp_rules import Stamp

DEMO = "demo"
"""The data that ship with Aquiline."""
TOPIC = "topic"
"""The topics of the bus in the settings."""
SIMULATOR = "simulator"
RULES = "rules"
RECORDED = "recorded"
NONE = "none"


@dataclass(frozen=True, slots=True)
class BacktestRequest:
    """The command's options; `aquiline backtest --help` describes each."""

    data: tuple[str, ...]
    symbol: str | None
    interval: str | None
    calendar: str
    price_increment: str | None
    """None: the one that the prices are on."""
    currency: str
    price_adjustment: str
    intervals: str | None
    vision: str
    since_ms: int | None
    until_ms: int | None
    engine: str
    assignments: tuple[str, ...]
    config: str | None
    blind: bool = False
    """Run again with symbol, price level and dates hidden from the model."""
    time_zone: str | None = None
    stamp: Stamp = "open"
    extended: bool = False
    notes: str | None = None
    """A file of notes, for candles."""
