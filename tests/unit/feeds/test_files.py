"""Candles from files: the usual layouts are read, and every error says where it is."""

from __future__ import annotations

import datetime as dt
import gzip
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from schemas import Candle, RunMode
from services.feeds.files import FileError, Reading, ReadOptions, merged, read_all, read_candles
from services.feeds.read_options import utc
from services.feeds.samples import BARS_FILE, load_stocks
from services.feeds.stamp_rules import Stamp
from tests.unit.market.build import MINUTE, ms

NOW_MS = ms("2026-01-01T00:00")
PLAIN = ReadOptions(RunMode.REPLAY, "AAPL.XNAS", "1d", "XNYS", NOW_MS)
BITS = ReadOptions(RunMode.REPLAY, "BTC-USD.CBSE", "1m", "24x7", NOW_MS)
STOCK = replace(PLAIN, interval=None)


def reading(path: Path, text: str | bytes, options: ReadOptions = BITS) -> Reading:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_candles(path, options)


def read(path: Path, text: str | bytes, options: ReadOptions = BITS) -> Sequence[Candle]:
    return reading(path, text, options).candles


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
    (bar,) = read(tmp_path / "a.CSV", text, replace(BITS, symbol=None))
    assert (bar.symbol, bar.interval, bar.ts_close_ms, bar.revision) == ("X.Y1", "5m", 5 * MINUTE, 2)


def test_the_shipped_stocks_can_be_replayed_as_a_file() -> None:
    bars = list(read_candles(BARS_FILE, ReadOptions(RunMode.DEMO, None, "1d", "24x7", NOW_MS)).candles)
    rounded = [bar for stock in load_stocks(RunMode.DEMO).values() for bar in stock]
    assert sorted((bar.symbol, bar.ts_close_ms, round(bar.close, 2)) for bar in bars) == sorted(
        (bar.symbol, bar.ts_close_ms, bar.close) for bar in rounded
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty"),
        ("time,open,high,low,close\n1720009800,1,1,1\n", r"line 2: 4 values, where the first row has 5 columns"),
        ("time,open,high,low,close\n1720009800,1,1,1,1\n1720009860,ten,1,1,1\n", r"line 3: open is 'ten'; a number is expected"),
        ("Time,Open,High,Low,Close\n1720009800,1,,1,1\n", r"line 2: High is ''; a number is expected"),
        ("Time,Open,High,Low,Close\n1720009800,1,inf,1,1\n", r"line 2: High is 'inf'; a number is expected"),
        ("Time,Open,High,Low,Close\n1720009800,1,1,2,1\n", r"line 2: Open '1', High '1', Low '2', Close '1': Low and High do not enclose"),
        ("Time,Open,High,Low,Close\n1720009800,-1,1,-2,1\n", r"line 2: Open is '-1'; a price above 0"),
        ("Time,Open,High,Low,Close,Volume\n1720009800,1,1,1,1,-5\n", r"line 2: Volume is '-5'; a volume from 0"),
        ("time,open,high,low,close\nsoon,1,1,1,1\n", r"line 2: time is 'soon', which is not a time"),
        ("time,open,high,low,close\n0,1,1,1,1\n", r"line 2: time is '0', which is not a plausible time"),
        ("ts_open_ms,ts_close_ms,open,high,low,close\ninf,1,1,1,1,1\n", r"line 2: ts_open_ms is 'inf'; a number is expected"),
        ("ts_open_ms,ts_close_ms,open,high,low,close\n0,90000,1,1,1,1\n", r"line 2: ts_close_ms is 90000 ms after ts_open_ms"),
        ("open,high,low,close\n1,1,1,1\n", r"there is no column for the time; the columns are open, high, low, close"),
        ("time,open,high,low\n1720009800,1,1,1\n", r"there is no column for close; the columns are time, open, high, low"),
        ("Time,Close,open,high,low,close\n1720009800,1,1,1,1,1\n", r"the header names 'Close' \(column 2\) and 'close' \(column 6\)"),
        ("time,open,high,low,close\n4000000000,1,1,1,1\n", r"line 2: time is '4000000000', which is in the future"),
        ("1,2,3\n4,5,6\n7,8,9\n", r"no row holds a time and four prices; the first is '1, 2, 3'"),
        ('{"a": 1}', "neither CSV nor Parquet"),
    ],
)
def test_an_error_names_file_row_and_the_column_as_the_file_calls_it(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(FileError, match=r"a\.csv.*(" + problem + ")"):
        read(tmp_path / "a.csv", text)


def test_a_day_without_a_session_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"date is '2024-07-04', which is in no session of calendar XNYS"):
        read(tmp_path / "a.csv", "date,open,high,low,close\n2024-07-04,1,1,1,1\n", PLAIN)


def test_what_neither_file_nor_options_say_is_asked_for(tmp_path: Path) -> None:
    text = "time,open,high,low,close\n1720009800,1,1,1,1\n"
    with pytest.raises(FileError, match="no column has a symbol; set --symbol"):
        read(tmp_path / "a.csv", text, replace(BITS, symbol=None))
    with pytest.raises(FileError, match="no column has the interval, and the rows do not show it; set --interval"):
        read(tmp_path / "a.csv", text, replace(BITS, interval=None))


def test_files_that_are_not_there_or_of_no_known_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no such file"):
        read_candles(tmp_path / "none.csv", BITS)
    with pytest.raises(FileError, match="is a folder"):
        read_candles(tmp_path, BITS)
    with pytest.raises(FileError, match="an Excel workbook; save it as CSV"):
        read(tmp_path / "a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1")
    with pytest.raises(FileError, match="it holds binary data"):
        read(tmp_path / "a.csv", b"time\x00open")


TWO_MINUTES = "time,open,high,low,close,volume\n1720009800,1,1,1,1,5\n1720009860,1,1,1,1,6\n"


@pytest.mark.parametrize("name", ["a.csv", "a.gz", "a.dat"])
def test_content_and_not_the_name_says_how_a_file_is_packed(tmp_path: Path, name: str) -> None:
    assert len(read(tmp_path / name, gzip.compress(TWO_MINUTES.encode()))) == 2
    assert len(read(tmp_path / name, TWO_MINUTES)) == 2
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("BTCUSDT-1m.csv", TWO_MINUTES)
    assert len(read_candles(tmp_path / "b.zip", BITS).candles) == 2


@pytest.mark.parametrize("cut", [10, 40, -9])
def test_a_damaged_archive_is_one_sentence_with_the_files_name(tmp_path: Path, cut: int) -> None:
    with pytest.raises(FileError, match=r"a\.csv\.gz is damaged"):
        read(tmp_path / "a.csv.gz", gzip.compress(TWO_MINUTES.encode() * 50)[:cut])


@pytest.mark.parametrize(
    ("text", "close", "volume"),
    [
        ("Date;Open;High;Low;Close;Volume\n02.07.2024;1.234,5;1.240,25;1.230,0;1.235,75;1.234.567\n", 1235.75, 1_234_567),
        ("\ufeffDATE;OPEN;HIGH;LOW;CLOSE;VOLUME\r\n2024-07-02;10,5;11,0;10,0;10,75;5\r\n", 10.75, 5),
        ('date,open,high,low,close,volume\n2024-07-02,"1,234.50","1,240.25","1,230.00","1,235.75","1,234,567"\n', 1235.75, 1_234_567),
        ('date,open,high,low,price,vol.,change %\n"Jul 02, 2024","1,234.50","1,240.25","1,230.00","1,235.75",1.5M,0.1%\n', 1235.75, 1.5e6),
        ("date\topen\thigh\tlow\tclose\tvolume\n2024-07-02\t10.5\t11\t10\t10.75\t-\n", 10.75, 0),
        ("date,open,high,low,close,volume,\n2024-07-02,10.5,11,10,10.75,7,\n", 10.75, 7),
        ("date;open;high;low;close\n2024-07-02;1 234,5;1 240,25;1 230,0;1 235,75\n", 1235.75, 0),
    ],
)
def test_numbers_are_read_as_people_write_them(tmp_path: Path, text: str, close: float, volume: float) -> None:
    (bar,) = read(tmp_path / "a.csv", text, PLAIN)
    assert (bar.close, bar.volume, bar.ts_open_ms) == (close, volume, ms("2024-07-02T13:30"))


def test_other_encodings_than_utf_8_are_read(tmp_path: Path) -> None:
    text = "Datum;Eröffnung;Hoch;Tief;Schlusskurs\n2024-07-02;1,5;2,5;1,0;2,0\n"
    assert [read(tmp_path / "a.csv", text.encode(code), PLAIN)[0].close for code in ("utf-8", "utf-16", "latin-1")] == [2.0] * 3


def test_rows_that_are_no_bars_are_left_out_and_counted(tmp_path: Path) -> None:
    text = (
        "Date,Open,High,Low,Close,Volume\n2024-07-02,1,3,0.5,2,100\n2024-07-02,1,3,0.5,2,100\n2024-07-03,,,,,\n"
        "2024-07-05,nan,nan,nan,nan,0\n2024-07-08,2,3,1,2,5\nTotal,,,,,105\nDownloaded from a site\n"
    )
    got = reading(tmp_path / "a.csv", text, PLAIN)
    assert (len(got.candles), dict(got.left_out)) == (2, {"duplicate": 1, "without prices": 2, "text after the last bar": 1})


def test_two_rows_of_one_bar_with_other_values_are_refused(tmp_path: Path) -> None:
    text = "Date,Open,High,Low,Close\n2024-07-02,1,3,0.5,2\n2024-07-03,1,3,0.5,2\n2024-07-02,1,3,0.5,2.5\n"
    with pytest.raises(FileError, match=r"line 4: Date is '2024-07-02', which line 2 also has, with different values"):
        read(tmp_path / "a.csv", text, PLAIN)


def test_rows_in_any_order_come_out_in_order_of_time(tmp_path: Path) -> None:
    got = reading(tmp_path / "a.csv", "time,open,high,low,close\n1720009920,1,1,1,1\n1720009800,1,1,1,1\n1720009860,1,1,1,1\n")
    assert [bar.ts_open_ms for bar in got.candles] == [1720009800000, 1720009860000, 1720009920000]
    assert "rows were not in time order" in got.notes


def test_bars_of_another_interval_than_is_said_are_refused(tmp_path: Path) -> None:
    hours = "time,open,high,low,close\n" + "".join(f"{1720008000 + 3600 * at},1,1,1,1\n" for at in range(5))
    with pytest.raises(FileError, match="the rows are 1h apart, but the interval is 1m"):
        read(tmp_path / "a.csv", hours)
    with pytest.raises(FileError, match="is before the bar of 4h of line 2 ends; does the file mix intervals"):
        read(tmp_path / "a.csv", hours, replace(BITS, interval="4h"))
    assert {bar.interval for bar in read(tmp_path / "a.csv", hours, replace(BITS, interval=None))} == {"1h"}


def test_minutes_without_trade_are_no_other_interval(tmp_path: Path) -> None:
    text = "time,open,high,low,close\n" + "".join(f"{1720008000 + 60 * at},1,1,1,1\n" for at in (0, 3, 7, 19, 24))
    assert len(read(tmp_path / "a.csv", text)) == 5


def test_a_bar_that_ends_in_the_future_is_forming(tmp_path: Path) -> None:
    first, second = read(tmp_path / "a.csv", TWO_MINUTES, replace(BITS, now_ms=1_720_009_870_000))
    assert (first.closed, second.closed) == (True, False)


def test_bars_before_and_after_the_session_are_counted_and_left_out_or_kept(tmp_path: Path) -> None:
    text = "time,open,high,low,close\n" + "".join(f"2024-07-01T{hour}:30:00Z,1,1,1,1\n" for hour in range(10, 24))
    got = reading(tmp_path / "a.csv", text, replace(STOCK, interval="1h"))
    assert (utc(got.candles[0].ts_open_ms), len(got.candles)) == ("2024-07-01T13:30Z", 7)
    assert dict(got.left_out) == {"before or after the session": 7}
    assert utc(got.candles[-1].ts_close_ms) == "2024-07-01T20:30Z", "it holds trades after the close"
    assert len(read(tmp_path / "a.csv", text, replace(STOCK, interval="1h", extended=True))) == 14


@pytest.mark.parametrize(
    ("hours", "zone", "opens"),
    [
        (range(9, 16), None, "13:30"),
        (range(13, 20), None, "13:30"),
        (range(15, 22), "Europe/Berlin", "13:30"),
    ],
)
def test_times_without_a_zone_are_the_exchanges_or_utc_whichever_lies_in_its_sessions(
    tmp_path: Path, hours: range, zone: str | None, opens: str
) -> None:
    text = "time,open,high,low,close\n" + "".join(f"2024-07-01 {hour:02d}:30,1,1,1,1\n" for hour in hours)
    bars = read(tmp_path / "a.csv", text, replace(STOCK, interval="1h", time_zone=zone))
    assert (utc(bars[0].ts_open_ms)[11:16], len(bars)) == (opens, 7)


def test_times_that_may_be_in_two_zones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"as many bars are in sessions .* set --time-zone UTC or --time-zone America/New_York"):
        read(tmp_path / "a.csv", "time,open,high,low,close\n2024-07-01 14:30,1,1,1,1\n", replace(STOCK, interval="1h"))


def test_a_brokers_server_time_is_asked_for(tmp_path: Path) -> None:
    text = "".join(f"2024.07.05,{hour:02d}:00,1,1,1,1,5\n" for hour in range(24))  # a Friday, whose session ends at 24:00 in EET
    fx = replace(BITS, symbol="EUR-USD.FX", interval="1h", calendar="FX")
    with pytest.raises(
        FileError, match=r"column 1 \(date\) column 2 \(time\) is the time of the broker's server, .*; set --time-zone to it"
    ):
        read(tmp_path / "a.csv", text, fx)
    bars = read(tmp_path / "a.csv", text, replace(fx, time_zone="EET"))
    assert (len(bars), utc(bars[-1].ts_close_ms)) == (24, "2024-07-05T21:00Z")


def test_no_row_in_any_session_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"line 2: time is '2024-07-01T02:30Z', which is in no session of calendar XNYS, .*--time-zone"):
        read(tmp_path / "a.csv", "time,open,high,low,close\n2024-07-01T02:30Z,1,1,1,1\n", replace(STOCK, interval="1h"))


def test_the_hour_that_comes_twice_is_two_hours_and_the_one_that_never_comes_is_refused(tmp_path: Path) -> None:
    hours = replace(BITS, interval="1h", time_zone="America/New_York")
    lines = [f"2024-11-03 {hour:02d}:00,1,1,1,1" for hour in (0, 1, 1, 2)]
    for order in (lines, lines[::-1]):
        bars = read(tmp_path / "a.csv", "time,open,high,low,close\n" + "\n".join(order), hours)
        assert [utc(bar.ts_open_ms)[11:13] for bar in bars] == ["04", "05", "06", "07"]
    with pytest.raises(FileError, match=r"does not exist in time zone America/New_York"):
        read(tmp_path / "a.csv", "time,open,high,low,close\n2024-03-10 02:30,1,1,1,1\n", hours)


def test_a_stamp_that_is_no_slots_start_keeps_its_own_time(tmp_path: Path) -> None:
    text = "time,open,high,low,close\n2024-07-01T14:10:00Z,1,1,1,1\n2024-07-01T15:10:00Z,1,1,1,1\n2024-07-01T19:10:00Z,1,1,1,1\n"
    bars = read(tmp_path / "a.csv", text, replace(STOCK, interval="1h"))
    assert [(utc(bar.ts_open_ms)[11:16], utc(bar.ts_close_ms)[11:16]) for bar in bars] == [
        ("14:10", "15:10"),
        ("15:10", "16:10"),
        ("19:10", "20:00"),
    ]


def test_a_daily_bar_stamped_at_another_hour_of_a_market_that_never_closes_is_known_a_day_later(tmp_path: Path) -> None:
    (bar,) = read(tmp_path / "a.csv", "time,open,high,low,close\n2024-06-05T21:00:00Z,1,1,1,1\n", replace(BITS, interval="1d"))
    assert (utc(bar.ts_open_ms), utc(bar.ts_close_ms)) == ("2024-06-05T21:00Z", "2024-06-06T21:00Z")
    with pytest.raises(FileError, match=r"is neither the open of a session of calendar XNYS nor midnight; .*--stamp close"):
        read(tmp_path / "a.csv", "time,open,high,low,close\n2024-06-05T20:00:00Z,1,1,1,1\n", PLAIN)


def test_days_on_which_clocks_are_set_end_when_the_next_one_begins(tmp_path: Path) -> None:
    stamps = ["2024-11-01T21:00Z", "2024-11-02T21:00Z", "2024-11-03T22:00Z", "2024-11-04T22:00Z"]
    text = "time,open,high,low,close\n" + "".join(f"{stamp},1,1,1,1\n" for stamp in stamps)
    closes = [utc(bar.ts_close_ms) for bar in read(tmp_path / "a.csv", text, replace(BITS, interval="1d"))]
    assert closes == ["2024-11-02T21:00Z", "2024-11-03T22:00Z", "2024-11-04T22:00Z", "2024-11-05T22:00Z"]


@pytest.mark.parametrize(
    ("stamp", "which", "closes"),
    [
        ("2024-07-01", "open", "2024-07-05T20:00Z"),
        ("2024-07-05", "close", "2024-07-05T20:00Z"),
        ("2024-07-07", "close", "2024-07-05T20:00Z"),
        ("2024-01-01", "open", "2024-01-05T21:00Z"),
    ],
)
def test_a_week_is_that_of_its_first_or_last_day(tmp_path: Path, stamp: str, which: Stamp, closes: str) -> None:
    weeks = replace(PLAIN, interval="1w", stamp=which)
    (bar,) = read(tmp_path / "a.csv", f"date,open,high,low,close\n{stamp},1,1,1,1\n", weeks)
    assert utc(bar.ts_close_ms) == closes


@pytest.mark.parametrize("stamp", ["2024-07-07", "2024-07-05", "2024-07-03"])
def test_a_week_stamped_on_a_day_that_may_end_it_is_refused(tmp_path: Path, stamp: str) -> None:
    with pytest.raises(FileError, match=r"and does not start a week; .*--stamp close"):
        read(tmp_path / "a.csv", f"date,open,high,low,close\n{stamp},1,1,1,1\n", replace(PLAIN, interval="1w"))


def test_stamps_at_the_bars_ends_are_read_so(tmp_path: Path) -> None:
    text = "time,open,high,low,close\n" + "".join(f"2024-07-01T{hour}Z,1,1,1,1\n" for hour in ("14:30", "15:30", "20:00"))
    bars = read(tmp_path / "a.csv", text, replace(STOCK, interval="1h", stamp="close"))
    assert [utc(bar.ts_close_ms)[11:16] for bar in bars] == ["14:30", "15:30", "20:00"]


@pytest.mark.parametrize("name", ["BTC/USDT", "BTC/USDT:USDT", "BTCUSDT", "btc-usdt", "BINANCE:BTCUSDT"])
def test_a_symbol_as_its_provider_writes_it_is_the_one_that_is_asked_for(tmp_path: Path, name: str) -> None:
    text = f"symbol,time,open,high,low,close\n{name},1720009800,1,1,1,1\nETH/USDT,1720009800,2,2,2,2\n"
    got = reading(tmp_path / "a.csv", text, replace(BITS, symbol="BTC-USDT.BINA"))
    assert ([bar.symbol for bar in got.candles], dict(got.left_out)) == (["BTC-USDT.BINA"], {"of other symbols": 1})


def test_a_symbol_is_mapped_or_refused_and_never_passed_over(tmp_path: Path) -> None:
    text = "symbol,time,open,high,low,close\nBTC/USDT,1720009800,1,1,1,1\nETH/USDT,1720009800,2,2,2,2\n"
    both = replace(BITS, symbol="BTC/USDT=BTC-USDT.BINA,ETH/USDT=ETH-USDT.BINA")
    assert [(bar.symbol, bar.close) for bar in read(tmp_path / "a.csv", text, both)] == [("BTC-USDT.BINA", 1), ("ETH-USDT.BINA", 2)]
    with pytest.raises(FileError, match=r"line 2: symbol is 'BTC/USDT', and --symbol SOL-USDT.BINA names another"):
        read(tmp_path / "a.csv", text, replace(BITS, symbol="SOL-USDT.BINA"))
    with pytest.raises(
        FileError, match=r"line 2: symbol is 'BTC/USDT', which has no venue; map it with --symbol 'BTC/USDT=BTC-USDT.VENUE'"
    ):
        read(tmp_path / "a.csv", text, replace(BITS, symbol=None))
    with pytest.raises(FileError, match=r"--symbol 'btc' is not a symbol with its venue"):
        read(tmp_path / "a.csv", text, replace(BITS, symbol="btc"))


def test_days_and_months_between_slashes_are_told_apart_by_the_rows(tmp_path: Path) -> None:
    def days(*dates: str) -> list[str]:
        text = "date,open,high,low,close\n" + "".join(f"{date},1,1,1,1\n" for date in dates)
        return [utc(bar.ts_open_ms)[:10] for bar in read(tmp_path / "a.csv", text, PLAIN)]

    assert days("07/01/2024", "07/02/2024") == ["2024-07-01", "2024-07-02"]
    assert days("01/07/2024", "02/07/2024") == ["2024-07-01", "2024-07-02"]
    assert days("31/07/2024") == ["2024-07-31"]
    with pytest.raises(FileError, match="which may have the day or the month first"):
        days("07/02/2024")


def test_several_tickers_in_the_header_are_several_symbols(tmp_path: Path) -> None:
    header = "Price,Close,Close,High,High,Low,Low,Open,Open\nTicker,AAPL,MSFT,AAPL,MSFT,AAPL,MSFT,AAPL,MSFT\nDate,,,,,,,,\n"
    text = header + "2024-07-02,2,5,3,6,1,4,2,5\n"
    mapped = replace(PLAIN, symbol="AAPL=AAPL.XNAS,MSFT=MSFT.XNAS")
    assert [(bar.symbol, bar.close) for bar in read(tmp_path / "a.csv", text, mapped)] == [("AAPL.XNAS", 2), ("MSFT.XNAS", 5)]


def test_two_files_with_one_bar_are_merged_or_refused(tmp_path: Path) -> None:
    reading(tmp_path / "a.csv", TWO_MINUTES)
    reading(tmp_path / "b.csv", TWO_MINUTES)
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    assert len(merged(read_all(paths, BITS))) == 2
    (tmp_path / "b.csv").write_text(TWO_MINUTES.replace(",6", ",7"))
    with pytest.raises(FileError, match=r"a\.csv and .*b\.csv give the bar of 1m of BTC-USD.CBSE at 2024-07-03T12:31Z different values"):
        read_all(paths, BITS)


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
    from pyarrow import parquet  # noqa: PLC0415

    path = tmp_path / "a.parquet"
    moment = dt.datetime(2024, 7, 3, 12, 30, tzinfo=dt.UTC)
    table = pa.table({"Time": [moment], "Open": [1.0], "High": [2.0], "Low": [1.0], "Close": [1.5], "Volume": [3]})
    parquet.write_table(table, path)
    (bar,) = read_candles(path, BITS).candles
    assert (bar.ts_open_ms, bar.high, bar.volume) == (ms("2024-07-03T12:30"), 2.0, 3.0)
    for damaged in (b"not parquet", path.read_bytes()[:-20], path.read_bytes()[:40]):
        with pytest.raises(FileError, match=r"b\.parquet is damaged or not a Parquet file"):
            read(tmp_path / "b.parquet", damaged)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FileError, match=r"Parquet files need pyarrow; install it with: pip install 'aquiline\[parquet\]'"):
        read(tmp_path / "a.parquet", b"PAR1")
