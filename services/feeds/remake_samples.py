"""Remakes the shipped sample bars from the PyPI package `bokeh-sampledata`, and refuses when the data are not as described.

`python -m services.feeds.remake_samples STOCKS_CSV_GZ`, with the `_data/stocks.csv.gz` of an unpacked wheel.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import hashlib
import io
import sys
from pathlib import Path
from typing import Final

from services.core.calendar import SessionCalendar
from services.feeds.samples import BARS_FILE, CALENDAR, SPLITS_FILE, SYMBOLS

SOURCE_SHA256: Final = "e73fe05d106b7da1abe8f947264c514afd02cef5c9db4864b9437c84d6bd6069"
"""Of the uncompressed CSV, as the package's own licence notes give it."""

COLUMNS: Final = ("symbol", "ts_open_ms", "ts_close_ms", "open", "high", "low", "close", "volume")
# A split shows as a step of the adjusted close against the close. The largest step that is none is MSFT's special dividend of
# 3.08 dollars on 2004-11-15 (1.11); the smallest usual split is 3:2.
_SPLIT_STEP: Final = 1.4


def main(arguments: list[str]) -> int:
    """Write the sample files beside this module; return the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m services.feeds.remake_samples STOCKS_CSV_GZ\n")
        return 2
    text = gzip.decompress(Path(arguments[0]).read_bytes())
    digest = hashlib.sha256(text).hexdigest()
    if digest != SOURCE_SHA256:
        sys.stderr.write(f"{arguments[0]} has sha256 {digest} uncompressed; {SOURCE_SHA256} is wanted\n")
        return 1
    rows = list(csv.DictReader(io.StringIO(text.decode())))
    sessions = [_session(row["Date"]) for row in rows]
    BARS_FILE.write_bytes(gzip.compress(_bars(rows, sessions), compresslevel=9, mtime=0))
    SPLITS_FILE.write_text(_splits(rows, sessions))
    sys.stdout.write(f"{len(rows)} bars in {BARS_FILE} ({BARS_FILE.stat().st_size} bytes), splits in {SPLITS_FILE}\n")
    return 0


def _session(day: str) -> tuple[int, int]:
    session = SessionCalendar.of(CALENDAR).session_on(dt.date.fromisoformat(day))
    if session is None:
        raise ValueError(f"{day} is no session of {CALENDAR}")
    return session


def _bars(rows: list[dict[str, str]], sessions: list[tuple[int, int]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row, (ts_open_ms, ts_close_ms) in zip(rows, sessions, strict=True):
        prices = [row[name] for name in ("Open", "High", "Low", "Close")]
        first, high, low, last = map(float, prices)
        if not (0 < low <= min(first, last) and max(first, last) <= high):
            raise ValueError(f"{row['Ticker']} {row['Date']}: low {low} and high {high} do not enclose {first} and {last}")
        writer.writerow([SYMBOLS[row["Ticker"]], ts_open_ms, ts_close_ms, *prices, row["Volume"]])
    return out.getvalue().encode()


def _splits(rows: list[dict[str, str]], sessions: list[tuple[int, int]]) -> str:
    lines = ["symbol,session,effective_ms,ratio"]
    before: dict[str, float] = {}
    for row, (ts_open_ms, _) in zip(rows, sessions, strict=True):
        factor = float(row["Adj Close"]) / float(row["Close"])
        step = factor / before.get(row["Ticker"], factor)
        if step > _SPLIT_STEP or step < 1 / _SPLIT_STEP:
            lines.append(f"{SYMBOLS[row['Ticker']]},{row['Date']},{ts_open_ms},{round(step, 2)}")
        before[row["Ticker"]] = factor
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
