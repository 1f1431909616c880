"""Candles from CSV and Parquet files. Every error names the file, the line, the column and the value.

Columns are found by name, whatever their case and order; others are ignored.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from schemas import Candle, RunMode
from services.core.calendar import SessionCalendar

_SYMBOL: Final = ("symbol", "ticker")
_TIME: Final = ("time", "timestamp", "datetime", "date")
_PRICES: Final = ("open", "high", "low", "close")
# Numbers this large are milliseconds since 1970, smaller ones seconds: as seconds it lies in the year 5138.
_LEAST_MS: Final = 100_000_000_000


class FileError(Exception):
    """A file cannot be read as candles; the text names file, line, column and value."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file does not say itself: used where the column is missing."""

    run_mode: RunMode
    symbol: str | None
    interval: str | None
    calendar: str
    """Cuts the bars where a file has only a time (the bar's open) or a date."""


def read_candles(path: Path, layout: Layout) -> Iterator[Candle]:
    """Yield the candles of `path` (`.csv`, `.csv.gz` or `.parquet`) in its order; raise FileError, CalendarError.

    A bar's times are `ts_open_ms` and `ts_close_ms`, or its open as `time`, `timestamp`, `datetime` or `date`: ISO 8601 (UTC
    unless it says otherwise), or seconds or milliseconds since 1970. Optional: `symbol` or `ticker`, `interval`, `volume`
    (0 when missing), `revision`.
    """
    if not path.is_file():
        raise FileError(f"{path}: there is no such file")
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        rows = _csv_rows(path)
    elif name.endswith(".parquet"):
        rows = _parquet_rows(path)
    else:
        raise FileError(f"{path}: files end in .csv, .csv.gz or .parquet")
    yield from _candles(path, rows, layout)


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if path.name.lower().endswith(".gz")
            else path.open(encoding="utf-8-sig", newline="") as lines
        ):
            reader = csv.reader(lines)
            header = [name.strip().lower() for name in next(reader, [])]
            if not header:
                raise FileError(f"{path}: the file is empty; its first line names the columns")
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise FileError(f"{path}, line {reader.line_num}: {len(row)} values; the first line names {len(header)} columns")
                yield reader.line_num, dict(zip(header, row, strict=True))
    except (UnicodeDecodeError, csv.Error, gzip.BadGzipFile, EOFError) as error:
        raise FileError(f"{path} cannot be read as CSV: {error}") from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise FileError(f"{path}: Parquet files need pyarrow; install it with: pip install 'aquiline[parquet]'") from error
    try:
        number = 0
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, {name.lower(): value for name, value in row.items()}
    except pa.ArrowInvalid as error:
        raise FileError(f"{path} cannot be read as Parquet: {error}") from error


def _candles(path: Path, rows: Iterable[tuple[int, Mapping[str, Any]]], layout: Layout) -> Iterator[Candle]:
    calendar = SessionCalendar.of(layout.calendar)
    for number, row in rows:
        fields = _Row(path, number, row)
        symbol = fields.text(_SYMBOL, layout.symbol, "give it with --symbol")
        interval = fields.text(("interval",), layout.interval, "give it with --interval")
        try:
            open_ms, close_ms = _times(fields, interval, calendar)
            yield Candle(
                schema_version=1,
                run_mode=layout.run_mode,
                symbol=symbol,
                interval=interval,
                ts_open_ms=open_ms,
                ts_close_ms=close_ms,
                volume=fields.number("volume", 0.0),
                closed=True,
                revision=int(fields.number("revision", 0.0)),
                **{name: fields.number(name) for name in _PRICES},
            )
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            where = ".".join(map(str, wrong["loc"]))
            raise fields.error(f"{where} = {wrong['input']!r}: {wrong['msg']}" if where else wrong["msg"]) from error
        except (ValueError, OverflowError) as error:
            raise fields.error(str(error)) from error


def _times(fields: _Row, interval: str, calendar: SessionCalendar) -> tuple[int, int]:
    if fields.has("ts_open_ms") and fields.has("ts_close_ms"):
        return int(fields.number("ts_open_ms")), int(fields.number("ts_close_ms"))
    for name in _TIME:
        if fields.has(name):
            moment = _moment(fields.value(name))
            bounds = (
                calendar.session_on(moment)
                if not isinstance(moment, int) and interval == "1d"
                else calendar.bar_bounds(interval, _ms(moment))
            )
            if bounds is None:
                raise ValueError(f"{name} is {fields.value(name)!r}, which lies in no session of calendar {calendar.name}")
            return bounds
    raise ValueError(f"there is no time; name the columns ts_open_ms and ts_close_ms, or one of {', '.join(_TIME)}")


def _moment(value: Any) -> int | dt.date:
    """Return a time in ms, or a date where the value is one."""
    if isinstance(value, dt.datetime):
        return _ms(value)
    if isinstance(value, dt.date):
        return value
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        try:
            return dt.date.fromisoformat(text)
        except ValueError:
            return _ms(dt.datetime.fromisoformat(text))
    if not math.isfinite(number):
        raise ValueError(f"time is {text!r}; a finite number is wanted")
    return int(number) if number >= _LEAST_MS else int(number * 1_000)


def _ms(moment: int | dt.date) -> int:
    if isinstance(moment, int):
        return moment
    if not isinstance(moment, dt.datetime):
        moment = dt.datetime(moment.year, moment.month, moment.day, tzinfo=dt.UTC)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return round(moment.timestamp() * 1_000)


class _Row:
    """One row, able to say where it stands."""

    def __init__(self, path: Path, number: int, row: Mapping[str, Any]) -> None:
        self._path = path
        self._number = number
        self._row = row

    def has(self, name: str) -> bool:
        return self._row.get(name) not in (None, "")

    def value(self, name: str) -> Any:
        return self._row[name]

    def text(self, names: tuple[str, ...], otherwise: str | None, hint: str) -> str:
        for name in names:
            if self.has(name):
                return str(self._row[name]).strip()
        if otherwise is None:
            raise self.error(f"there is no {names[0]}; {hint}")
        return otherwise

    def number(self, name: str, otherwise: float | None = None) -> float:
        if not self.has(name):
            if otherwise is None:
                raise self.error(f"there is no {name}")
            return otherwise
        try:
            return float(self._row[name])
        except (TypeError, ValueError):
            raise self.error(f"{name} is {self._row[name]!r}; a number is wanted") from None

    def error(self, problem: str) -> FileError:
        return FileError(f"{self._path}, line {self._number}: {problem}")
