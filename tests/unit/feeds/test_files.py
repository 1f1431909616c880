"""Candles from files: the usual layouts are read, and every error says where it is."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

import pytest

from schemas import Candle, RunMode
from services.feeds.files import FileError, Layout, read_candles
from services.feeds.samples import BARS_FILE, load_stocks
from tests.unit.market.build import MINUTE, ms

PLAIN = Layout(RunMode.REPLAY, "AAPL.XNAS", "1d", "XNYS")
BITS = Layout(RunMode.REPLAY, "BTC-USD.CBSE", "1m", "24x7")


def read(path: Path, text: str, layout: Layout) -> list[Candle]:
    path.write_text(text)
    return list(read_candles(path, layout))


def test_a_download_of_daily_bars_gets_its_sessions_from_the_calendar(tmp_path: Path) -> None:
    text = "Date,Open,High,Low,Close,Adj Close,Volume\n2024-07-02,1,3,0.5,2,2,100\n2024-07-03,2,3,1,2,2,\n"
    first, second = read(tmp_path / "a.csv", text, PLAIN)
    assert (first.symbol, first.interval, first.high, first.volume, first.closed) == ("AAPL.XNAS", "1d", 3, 100, True)
    assert (second.ts_open_ms, second.ts_close_ms, second.volume) == (ms("2024-07-03T13:30"), ms("2024-07-03T17:00"), 0)


@pytest.mark.parametrize(
    "time", ["2024-07-03T12:30:00Z", "2024-07-03 12:30", "2024-07-03T14:30:00+02:00", "1720009800", "1720009800000", "1720009800.0"]
)
def test_times_are_read_however_they_are_written(tmp_path: Path, time: str) -> None:
    (bar,) = read(tmp_path / "a.csv", f"timestamp,open,high,low,close\n{time},1,1,1,1\n", BITS)
    assert (bar.ts_open_ms, bar.ts_close_ms) == (ms("2024-07-03T12:30"), ms("2024-07-03T12:31"))


def test_columns_say_more_than_options(tmp_path: Path) -> None:
    text = "ticker,interval,ts_open_ms,ts_close_ms,open,high,low,close,revision\nX.Y1,5m,0,300000,1,1,1,1,2\n"
    (bar,) = read(tmp_path / "a.CSV", text, BITS)
    assert (bar.symbol, bar.interval, bar.ts_close_ms, bar.revision) == ("X.Y1", "5m", 5 * MINUTE, 2)


def test_the_shipped_stocks_can_be_replayed_as_a_file() -> None:
    bars = list(read_candles(BARS_FILE, Layout(RunMode.DEMO, None, "1d", "24x7")))
    rounded = [bar for stock in load_stocks(RunMode.DEMO).values() for bar in stock]
    assert [(bar.symbol, bar.ts_close_ms, round(bar.close, 2)) for bar in bars] == [
        (bar.symbol, bar.ts_close_ms, bar.close) for bar in rounded
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty"),
        ("time,open,high,low,close\n0,1,1,1\n", r"line 2: 4 values; the first line names 5 columns"),
        ("time,open,high,low,close\n0,1,1,1,1\n60,ten,1,1,1\n", r"line 3: open is 'ten'; a number is wanted"),
        ("time,open,high,low,close\n0,1,nan,1,1\n", r"line 2: high = nan: Input should be"),
        ("time,open,high,low,close\n0,1,1,2,1\n", r"line 2: .*low 2.0 and high 1.0 do not enclose"),
        ("time,open,high,low,close\nsoon,1,1,1,1\n", r"line 2: .*'soon'"),
        ("time,open,high,low,close\ninf,1,1,1,1\n", r"line 2: time is 'inf'; a finite number is wanted"),
        ("ts_open_ms,ts_close_ms,open,high,low,close\ninf,1,1,1,1,1\n", r"line 2: "),
        ("open,high,low,close\n1,1,1,1\n", r"line 2: there is no time; name the columns ts_open_ms"),
        ("time,open,high,low\n0,1,1,1\n", r"line 2: there is no close"),
    ],
)
def test_an_error_names_file_line_and_value(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(FileError, match=r"a\.csv.*" + problem):
        read(tmp_path / "a.csv", text, BITS)


def test_a_day_without_a_session_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"date is '2024-07-04', which lies in no session of calendar XNYS"):
        read(tmp_path / "a.csv", "date,open,high,low,close\n2024-07-04,1,1,1,1\n", PLAIN)


def test_what_neither_file_nor_options_say_is_asked_for(tmp_path: Path) -> None:
    text = "time,open,high,low,close\n0,1,1,1,1\n"
    with pytest.raises(FileError, match="there is no symbol; give it with --symbol"):
        read(tmp_path / "a.csv", text, Layout(RunMode.REPLAY, None, "1m", "24x7"))
    with pytest.raises(FileError, match="there is no interval; give it with --interval"):
        read(tmp_path / "a.csv", text, Layout(RunMode.REPLAY, "A.B1", None, "24x7"))


def test_files_that_are_not_there_or_of_no_known_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no such file"):
        list(read_candles(tmp_path / "none.csv", BITS))
    with pytest.raises(FileError, match=r"files end in \.csv, \.csv\.gz or \.parquet"):
        read(tmp_path / "a.xlsx", "", BITS)
    with pytest.raises(FileError, match="cannot be read as CSV"):
        read(tmp_path / "a.csv.gz", "not gzip", BITS)


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
    from pyarrow import parquet  # noqa: PLC0415

    path = tmp_path / "a.parquet"
    moment = dt.datetime(2024, 7, 3, 12, 30, tzinfo=dt.UTC)
    table = pa.table({"Time": [moment], "Open": [1.0], "High": [2.0], "Low": [1.0], "Close": [1.5], "Volume": [3]})
    parquet.write_table(table, path)
    (bar,) = read_candles(path, BITS)
    assert (bar.ts_open_ms, bar.high, bar.volume) == (ms("2024-07-03T12:30"), 2.0, 3.0)
    with pytest.raises(FileError, match="cannot be read as Parquet"):
        read(tmp_path / "b.parquet", "not parquet", BITS)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FileError, match=r"Parquet files need pyarrow; install it with: pip install 'aquiline\[parquet\]'"):
        read(tmp_path / "a.parquet", "", BITS)
