"""Tables over outcomes, by day and symbol: a row a signal, and the figures of any group of rows worked out from them. Pure.

A row is set, never added to: an outcome that comes again sets the same row again, so no crash and no redelivery counts it twice, and
the figures do not depend on the order in which outcomes came.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import orjson

from schemas import SignalOutcome

WINDOW_MS: Final = 86_400_000
"""A window is a UTC day of event time, by when a position ended."""
BUCKETS: Final = 5
"""Buckets of conviction: 0 to 0.2 and so on, the last one with 1.0."""


class Group(NamedTuple):
    """What rows are grouped by."""

    symbol: str
    action: str
    source: str
    vision: str
    bucket: int


class Row(NamedTuple):
    """What is kept of one outcome; `net` is None when no position was opened."""

    action: str
    source: str
    vision: str
    conviction: float
    net: float | None


class Figures(NamedTuple):
    """The figures of a group. Ratios and means are None where nothing was opened."""

    signals: int
    opened: int
    hits: int
    """Positions that made money after costs."""
    hit_rate: float | None
    expectancy: float | None
    """Mean net return of an opened position, as a fraction."""
    pnl: float
    """Sum of net returns: what one unit of capital a position made."""
    conviction: float | None
    """Mean conviction of what was opened: beside the hit rate, the calibration."""


class Window:
    """The rows of one symbol and day."""

    def __init__(self, rows: Mapping[str, Row] | None = None) -> None:
        """Start with `rows`, by signal id."""
        self.rows: dict[str, Row] = dict(rows or {})

    @classmethod
    def load(cls, value: bytes | None) -> Window:
        """Return what `dump` made bytes of; an empty window for None."""
        return cls({name: Row(*row) for name, row in orjson.loads(value).items()} if value else None)

    def dump(self) -> bytes:
        """Return the window as JSON, the same bytes for the same rows."""
        return orjson.dumps({name: list(row) for name, row in self.rows.items()}, option=orjson.OPT_SORT_KEYS)

    def add(self, outcome: SignalOutcome) -> bool:
        """Set the outcome's row; return whether that changed anything. The first body of an id counts."""
        name = str(outcome.signal_id)
        if name in self.rows:
            return False
        self.rows[name] = Row(outcome.action.value, outcome.source, outcome.vision, outcome.conviction, outcome.return_net)
        return True


def window_start(ts_ms: int) -> int:
    """Return when the window that holds `ts_ms` starts."""
    return ts_ms // WINDOW_MS * WINDOW_MS


def window_key(symbol: str, start_ms: int) -> bytes:
    """Return a window's key in the table; a symbol holds no slash."""
    return f"{symbol}/{start_ms}".encode()


def parse_key(key: bytes) -> tuple[str, int]:
    """Return the symbol and start that `window_key` made a key of."""
    symbol, _, start_ms = key.decode().rpartition("/")
    return symbol, int(start_ms)


def bucket_of(conviction: float) -> int:
    """Return the bucket of a conviction, from 0."""
    return min(BUCKETS - 1, int(conviction * BUCKETS + 1e-9))


def tabulate(windows: Iterable[tuple[str, Window]]) -> dict[Group, Figures]:
    """Return the figures of every group in these windows, each given with its symbol."""
    rows: dict[Group, list[tuple[str, Row]]] = defaultdict(list)
    for symbol, window in windows:
        for name, row in window.rows.items():
            rows[Group(symbol, row.action, row.source, row.vision, bucket_of(row.conviction))].append((name, row))
    return {group: figures(row for _, row in sorted(found)) for group, found in sorted(rows.items())}


def figures(rows: Iterable[Row]) -> Figures:
    """Return the figures of `rows`."""
    found = list(rows)
    nets = list(_nets(found))
    opened = len(nets)
    hits = sum(net > 0 for net in nets)
    pnl = math.fsum(nets)
    return Figures(
        len(found),
        opened,
        hits,
        hits / opened if opened else None,
        pnl / opened if opened else None,
        pnl,
        math.fsum(row.conviction for row in found if row.net is not None) / opened if opened else None,
    )


def _nets(rows: Iterable[Row]) -> Iterator[float]:
    return (row.net for row in rows if row.net is not None)
