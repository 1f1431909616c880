"""The options of reading a file, and the result."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from schemas import Candle, RunMode, interval_ms
from services.feeds.stamp_rules import Stamp


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a file does not say."""

    run_mode: RunMode
    symbol: str | None
    """A symbol, or a mapping of the file's names: `BTC/USDT=BTC-USDT.BINA`."""
    interval: str | None
    calendar: str
    now_ms: int
    """Bars that end after this are forming."""
    time_zone: str | None = None
    """Of naive times. None means UTC for `24x7`, else the exchange's zone or UTC, whichever fits its sessions."""
    stamp: Stamp = "open"
    """Whether times are the open or the close of their bars."""
    extended: bool = False
    """Keep bars before and after the session, which are left out otherwise."""
    growing: bool = False
    """The file is being written: a last line without a line break is ignored, and of two rows of one bar the later wins."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A file's candles in order of their close, and what was left out."""

    path: Path
    layout: str
    rows: int
    candles: Sequence[Candle]
    left_out: Counter[str]
    """Rows that were left out, by reason."""
    notes: Sequence[str] = field(default_factory=tuple)
    """What was inferred from the data."""
    row_numbers: Sequence[int] = field(default_factory=tuple)
    """The row of each candle."""

    def __str__(self) -> str:
        """Return a one-line summary."""
        intervals = ", ".join(sorted({one.interval for one in self.candles}, key=interval_ms))
        said = f"{self.path.name}: {self.layout}, {self.rows:,} rows; {len(self.candles):,} bars of {intervals}"
        said += f" from {utc(self.candles[0].ts_open_ms)} to {utc(self.candles[-1].ts_close_ms)}"
        return "; ".join([said, *(f"{count:,} rows left out: {why}" for why, count in sorted(self.left_out.items())), *self.notes])


def utc(ts_ms: int) -> str:
    """Return a time in UTC, without seconds when they are zero."""
    at = dt.datetime.fromtimestamp(ts_ms / 1_000, dt.UTC)
    return f"{at:%Y-%m-%dT%H:%MZ}" if ts_ms % 60_000 == 0 else f"{at:%Y-%m-%dT%H:%M:%SZ}"
