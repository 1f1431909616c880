"""Candles from files: CSV and Parquet in the layouts of providers and platforms, each bar at its own time.

A bar is never known before it ended. What a file says in two ways, or does not say, is refused in the file's own words.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from schemas import Candle, interval_ms
from services.feeds.headers import find_columns
from services.feeds.layouts import Layout, recognise
from services.feeds.options import Reading, ReadOptions
from services.feeds.placing import Placed, Placer
from services.feeds.rows import RowReader
from services.feeds.tables import FileError, Table, read_table

__all__ = ["FileError", "ReadOptions", "Reading", "candles_of", "read_candles"]


def read_candles(path: Path, options: ReadOptions) -> Reading:
    """Read a file, whatever its layout; raise FileError with what is wrong and where, CalendarError."""
    return candles_of(read_table(path), options)


def candles_of(table: Table, options: ReadOptions) -> Reading:
    """Return the candles in a table; raise as `read_candles` does."""
    layouts = [recognise(columns) for columns in find_columns(table)]
    parts = [_read(table, layout, options) for layout in layouts]
    candles = [candle for part in parts for candle in part.candles]
    candles.sort(key=lambda one: (one.ts_close_ms, interval_ms(one.interval), one.symbol, one.revision))
    left_out = sum((part.left_out for part in parts), Counter[str]())
    if not candles:
        why = "; ".join(f"{count} rows left out: {why}" for why, count in left_out.items())
        raise FileError(f"{table.path}: the file holds no bars{f' ({why})' if why else ''}")
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return Reading(table.path, parts[0].layout, parts[0].rows, candles, left_out, notes)


def _read(table: Table, layout: Layout, options: ReadOptions) -> Reading:
    reader = RowReader(table, layout, options)
    bars = reader.read()
    placer = Placer(table, layout, options, reader.time_name)
    candles = [_candle(one, options) for one in placer.place(bars)] if bars else []
    forming = sum(not one.closed for one in candles)
    notes = [*reader.notes, *placer.notes, *([f"{forming} still forming"] if forming else [])]
    return Reading(table.path, layout.name, len(layout.columns.rows), candles, reader.left_out + placer.left_out, notes)


def _candle(one: Placed, options: ReadOptions) -> Candle:
    bar, span = one
    first, high, low, last = bar.prices
    return Candle(
        schema_version=1,
        run_mode=options.run_mode,
        symbol=bar.symbol,
        interval=bar.interval,
        ts_open_ms=span.open_ms,
        ts_close_ms=span.close_ms,
        open=first,
        high=high,
        low=low,
        close=last,
        volume=bar.volume,
        closed=span.close_ms <= options.now_ms,
        revision=bar.revision,
    )
