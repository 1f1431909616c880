"""The tables over outcomes as they are kept: a record a symbol and day, and for so many days."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from schemas import SignalOutcome
from services.scoring.app import ChangelogTable
from services.scoring.stats import WINDOW_MS, Window, parse_key, window_key, window_start


class Windows:
    """Adds outcomes to their windows, and lets old windows go."""

    def __init__(self, table: ChangelogTable, kept_days: int) -> None:
        """Keep windows in `table` until their symbol has one that starts `kept_days` days later."""
        self._table = table
        self._kept_ms = kept_days * WINDOW_MS
        self._starts: dict[str, set[int]] = defaultdict(set)

    def begin(self) -> None:
        """Look through what the table holds now."""
        self._starts.clear()
        for key in self._table.held():
            symbol, start_ms = parse_key(key)
            self._starts[symbol].add(start_ms)

    def add(self, partition: int, outcome: SignalOutcome) -> list[asyncio.Future[Any]] | None:
        """Add an outcome; return what is done once the broker has it, None when it was there already."""
        start_ms = window_start(outcome.ts_exit_ms)
        key = window_key(outcome.symbol, start_ms)
        window = Window.load(self._table.get(key))
        if not window.add(outcome):
            return None
        starts = self._starts[outcome.symbol]
        starts.add(start_ms)
        sent = [self._table.put(partition, key, window.dump())]
        for old in [one for one in starts if one <= max(starts) - self._kept_ms]:
            starts.discard(old)
            sent.append(self._table.put(partition, window_key(outcome.symbol, old), None))
        return sent
