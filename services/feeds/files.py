"""Reads candles from CSV and Parquet files in the layouts of data providers and trading platforms.

A bar is never known before it ended. Ambiguous or incomplete files are refused, and errors use the file's own column names and values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from schemas import Candle, interval_ms
from services.core.calendar import SessionCalendar
from services.feeds.bar_times import TimeAssigner, TimedBar
from services.feeds.file_table import FileError, Table, read_table
from services.feeds.headers import find_columns
from services.feeds.layouts import Layout, recognise
from services.feeds.read_options import Reading, ReadOptions, utc
from services.feeds.row_values import OtherSymbolError, RowReader

__all__ = ["FileError", "ReadOptions", "Reading", "candles_of", "merged", "read_all", "read_candles"]


def read_candles(path: Path, options: ReadOptions) -> Reading:
    """Read a file of any known layout; raise FileError naming row, column and value, or CalendarError."""
    SessionCalendar.of(options.calendar)  # raises for an unknown name, before any row is read
    return candles_of(read_table(path, growing=options.growing), options)


def candles_of(table: Table, options: ReadOptions) -> Reading:
    """Return the candles in a table; raise as `read_candles` does."""
    layouts = [recognise(columns) for columns in find_columns(table)]
    parts: list[Reading] = []
    others: list[OtherSymbolError] = []
    for layout in layouts:
        try:
            parts.append(_read(table, layout, options))
        except OtherSymbolError as error:
            others.append(error)
    if not parts:
        raise others[0]
    found = [pair for part in parts for pair in zip(part.candles, part.row_numbers, strict=True)]
    found.sort(key=lambda pair: (pair[0].ts_close_ms, interval_ms(pair[0].interval), pair[0].symbol, pair[0].revision))
    candles = [candle for candle, _ in found]
    left_out = sum([*(part.left_out for part in parts), *(error.left_out for error in others)], Counter[str]())
    if not candles:
        why = "; ".join(f"{count} rows left out: {why}" for why, count in left_out.items())
        raise FileError(f"{table.path}: the file holds no bars{f' ({why})' if why else ''}")
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return Reading(table.path, parts[0].layout, parts[0].rows, candles, left_out, notes, [number for _, number in found])


def _read(table: Table, layout: Layout, options: ReadOptions) -> Reading:
    reader = RowReader(table, layout, options)
    bars = reader.read()
    assigner = TimeAssigner(table, layout, options, reader.time_name)
    timed = assigner.assign(bars) if bars else []
    candles = [_candle(one, options) for one in timed]
    forming = sum(not one.closed for one in candles)
    notes = [*reader.notes, *assigner.notes, *([f"{forming} still forming"] if forming else [])]
    left_out = reader.left_out + assigner.left_out
    return Reading(table.path, layout.name, len(layout.columns.rows), candles, left_out, notes, [one.bar.row.number for one in timed])


def _candle(one: TimedBar, options: ReadOptions) -> Candle:
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


def read_all(paths: Sequence[Path], options: ReadOptions) -> list[Reading]:
    """Read several files; raise FileError also when two of them disagree on a bar."""
    readings = [read_candles(path, options) for path in paths]
    held: dict[tuple[str, str, int, int], tuple[Path, Candle]] = {}
    for reading in readings if len(readings) > 1 else ():
        for candle in reading.candles:
            path, other = held.setdefault(_place(candle), (reading.path, candle))
            if other != candle:
                bar = f"the bar of {candle.interval} of {candle.symbol} at {utc(candle.ts_open_ms)}"
                raise FileError(
                    f"{path} and {reading.path} give {bar} different values; if they are of two symbols, each needs a column that says so"
                )
    return readings


def merged(readings: Sequence[Reading]) -> list[Candle]:
    """Return the candles of all files without duplicates."""
    return list({_place(candle): candle for reading in readings for candle in reading.candles}.values())


def _place(candle: Candle) -> tuple[str, str, int, int]:
    return candle.symbol, candle.interval, candle.ts_open_ms, candle.revision
