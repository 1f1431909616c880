"""What a reader is told beside a file, and what it says of one when it has read it."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from schemas import Candle, RunMode, interval_ms
from services.feeds.slots import Stamp


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a file does not say itself."""

    run_mode: RunMode
    symbol: str | None
    """A symbol, or what names in the file stand for: `BTC/USDT=BTC-USDT.BINA`."""
    interval: str | None
    calendar: str
    now_ms: int
    """Bars that end later are forming."""
    time_zone: str | None = None
    """Of times that name none; None means UTC for `24x7`, and else the exchange's or UTC, whichever lies in its sessions."""
    stamp: Stamp = "open"
    """Which end of its bar a time is."""
    extended: bool = False
    """Keep bars before and after the session, which are left out else."""
    growing: bool = False
    """Somebody writes to the file: a last line without an end is not there yet, and of two rows of one bar the later one holds."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A file's candles by their ends, and what became of its rows."""

    path: Path
    layout: str
    rows: int
    candles: Sequence[Candle]
    left_out: Counter[str]
    """Rows that are no bars here, by reason."""
    notes: Sequence[str] = field(default_factory=tuple)
    """What was decided by looking at the data."""

    def __str__(self) -> str:
        """Return a sentence for people."""
        intervals = ", ".join(sorted({one.interval for one in self.candles}, key=interval_ms))
        said = f"{self.path.name}: {self.layout}, {self.rows:,} rows; {len(self.candles):,} bars of {intervals}"
        said += f" from {utc(self.candles[0].ts_open_ms)} to {utc(self.candles[-1].ts_close_ms)}"
        return "; ".join([said, *(f"{count:,} rows left out: {why}" for why, count in sorted(self.left_out.items())), *self.notes])


def utc(ts_ms: int) -> str:
    """Return a time in UTC, to the minute where it is one."""
    at = dt.datetime.fromtimestamp(ts_ms / 1_000, dt.UTC)
    return f"{at:%Y-%m-%dT%H:%MZ}" if ts_ms % 60_000 == 0 else f"{at:%Y-%m-%dT%H:%M:%SZ}"
