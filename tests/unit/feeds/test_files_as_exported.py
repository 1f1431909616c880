"""Files as exporters and scripts write them, each read as it is meant or refused with what to do."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import cramjam
import pytest

from services.feeds.bar_times import CLOSED_DAY
from services.feeds.files import FileError, Reading, read_candles
from services.feeds.read_options import utc
from tests.cases.layouts import options

STOCK: Final = {"symbol": "AAPL.XNAS", "calendar": "XNYS"}
BTC: Final = {"symbol": "BTC-USDT.BINA"}
EUR: Final = {"symbol": "EUR-USD.FX", "calendar": "FX"}
ROW: Final = "42283.58,42298.62,42261.02,42298.61,35.9"
DAY: Final = "187.1,188.4,183.9,185.6,1000"
FX_ROW: Final = "1.10427,1.10441,1.10352,1.10373,4356.32"
HOUR_MS: Final = 3_600_000
START_MS: Final = 1_704_067_200_000


def read(folder: Path, text: str | bytes, name: str = "bars.csv", **given: Any) -> Reading:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_candles(file, options(given))


def bars(read: Reading) -> list[tuple[str, str]]:
    return [(utc(one.ts_open_ms), utc(one.ts_close_ms)) for one in read.candles]


@pytest.mark.parametrize("given", [{}, {"interval": "own"}])
@pytest.mark.parametrize(("interval", "hours"), [("1h", 1), ("2h", 2), ("4h", 4), ("12h", 12), ("1d", 24), ("3d", 72), ("1w", 168)])
@pytest.mark.parametrize("inclusive", [1, 0])
def test_klines_of_any_length_have_the_interval_that_their_close_time_shows(
    tmp_path: Path, interval: str, hours: int, inclusive: int, given: dict[str, str]
) -> None:
    opens = [START_MS + at * hours * HOUR_MS for at in range(2)]
    rows = [f"{at},{ROW},{at + hours * HOUR_MS - inclusive},1519136.0,1327,23.1,980394.3,0\n" for at in opens]
    found = read(tmp_path, "".join(rows), **BTC, **dict.fromkeys(given, interval))
    assert [(one.interval, one.ts_open_ms, one.ts_close_ms) for one in found.candles] == [
        (interval, at, at + hours * HOUR_MS) for at in opens
    ]


def test_klines_of_a_month_are_refused_as_months(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="its bars are months; the longest supported interval is 1w"):
        read(tmp_path, f"{START_MS},{ROW},{START_MS + 31 * 24 * HOUR_MS - 1},1,1,1,1,0\n", **BTC)


@pytest.mark.parametrize("index", [True, False])
def test_rows_that_pandas_wrote_without_names_are_read_below_its_numbers(tmp_path: Path, index: bool) -> None:  # noqa: FBT001 - a case
    header = ("," if index else "") + "0,1,2,3,4,5\n"
    rows = [f"{f'{at},' if index else ''}{START_MS + at * HOUR_MS},{ROW}\n" for at in range(4)]
    found = read(tmp_path, header + "".join(rows), **BTC)
    assert (found.layout, len(found.candles), utc(found.candles[0].ts_open_ms)) == ("ccxt", 4, "2024-01-01T00:00Z")


@pytest.mark.parametrize("day", ["02.01.2024 00:00:00.000", "02.01.2024 00:00:00.000 GMT+0000"])
def test_a_daily_bar_of_a_stated_zone_that_begins_at_midnight_ends_at_midnight_and_not_with_the_session_before(
    tmp_path: Path, day: str
) -> None:
    column = "Local time" if "GMT+" in day else "Gmt time"
    days = [day.replace("02.", f"{number:02d}.", 1) for number in (1, 2, 3, 6, 7)]
    text = f"{column},Open,High,Low,Close,Volume\n" + "".join(f"{one},{FX_ROW}\n" for one in days)
    found = read(tmp_path, text, **EUR, interval="1d")
    ends = ["2024-01-02T00:00Z", "2024-01-03T00:00Z", "2024-01-04T00:00Z", "2024-01-08T00:00Z"]
    assert [close for _, close in bars(found)] == ends, "Saturday is left out, and the evenings of New Year's Day and Sunday are not"


def test_a_week_of_a_stated_zone_that_begins_on_sunday_evening_is_the_week_of_the_sessions_that_follow(tmp_path: Path) -> None:
    weeks = "".join(f"{day}.01.2024 22:00:00.000,{FX_ROW}\n" for day in ("07", "14", "21"))
    found = read(tmp_path, "Gmt time,Open,High,Low,Close,Volume\n" + weeks, **EUR, interval="1w")
    assert bars(found)[0] == ("2024-01-07T22:00Z", "2024-01-12T22:00Z")


def test_a_date_without_a_zone_is_the_session_of_that_date(tmp_path: Path) -> None:
    found = read(tmp_path, f"Date,Open,High,Low,Close,Volume\n2024-01-03,{FX_ROW}\n2024-01-04,{FX_ROW}\n", **EUR, interval="1d")
    assert bars(found)[0] == ("2024-01-02T22:00Z", "2024-01-03T22:00Z")


@pytest.mark.parametrize("flat", ["187.1,187.1,187.1,187.1,1000", "187.1,188.4,183.9,185.6,0"])
def test_a_row_without_a_trade_on_a_holiday_is_left_out_and_counted(tmp_path: Path, flat: str) -> None:
    rows = f"2024-01-12,{DAY}\n2024-01-15,{flat}\n2024-01-16,{DAY}\n"
    for extended in (False, True):
        found = read(tmp_path, "Date,Open,High,Low,Close,Volume\n" + rows, **STOCK, interval="1d", extended=extended)
        assert (len(found.candles), found.left_out) == (2, {CLOSED_DAY: 1})


def test_a_row_with_trades_on_a_holiday_is_refused_with_what_to_do(tmp_path: Path) -> None:
    rows = f"2024-01-12,{DAY}\n2024-01-15,{DAY}\n2024-01-16,{DAY}\n"
    with pytest.raises(FileError, match=r"line 3: Date is '2024-01-15', which is in no session of calendar XNYS; remove the row, or use"):
        read(tmp_path, "Date,Open,High,Low,Close,Volume\n" + rows, **STOCK, interval="1d")


@pytest.mark.parametrize("calendar", ["XNYS", "FX"])
@pytest.mark.parametrize("layout", ["4", "5"])
def test_metatraders_server_time_is_never_guessed(tmp_path: Path, layout: str, calendar: str) -> None:
    clocks = ["16:30", "17:00", "17:30", "18:00"]
    if layout == "4":
        text = "".join(f"2024.01.02,{clock},{DAY}\n" for clock in clocks)
    else:
        head = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
        text = head + "".join(f"2024.01.02\t{clock}:00\t187.1\t188.4\t183.9\t185.6\t1000\t0\t3\n" for clock in clocks)
    given = {"symbol": "AAPL.XNAS", "calendar": calendar}
    with pytest.raises(FileError, match="the time of the broker's server, whose zone the file does not have; set --time-zone"):
        read(tmp_path, text, **given)
    assert bars(read(tmp_path, text, **given, time_zone="Europe/Athens"))[0] == ("2024-01-02T14:30Z", "2024-01-02T15:00Z")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_read_with_and_without_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    text = f"Date,Open,High,Low,Close,Volume\r\n2024-01-02,{DAY}\r\n2024-01-03,{DAY}\r\n"
    assert len(read(tmp_path, text.encode(encoding), **STOCK, interval="1d").candles) == 2


def test_binary_data_is_not_taken_for_utf_16(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="it holds binary data"):
        read(tmp_path, bytes(range(256)) * 2, **BTC)


def test_leans_milliseconds_since_midnight_are_read_as_such_right_after_midnight(tmp_path: Path) -> None:
    found = read(tmp_path, "".join(f"{60_000 * at},{ROW}\n" for at in range(4)), "20240102_trade.csv", **BTC)
    assert (found.layout, *bars(found)[1]) == ("LEAN", "2024-01-02T00:01Z", "2024-01-02T00:02Z")


def test_interactive_brokers_form_of_utc_is_utc(tmp_path: Path) -> None:
    rows = "".join(f"20240102-14:3{at}:00,{DAY},187,12\n" for at in range(4))
    found = read(tmp_path, "date,open,high,low,close,volume,average,barCount\n" + rows, **STOCK)
    assert (found.layout, bars(found)[0][0]) == ("IBKR", "2024-01-02T14:30Z")


def test_a_column_called_utc_is_in_utc(tmp_path: Path) -> None:
    rows = "".join(f"02.01.2024 15:{at}0:00.000,{DAY}\n" for at in range(4))  # in a session in both zones that could be inferred
    found = read(tmp_path, "UTC,Open,High,Low,Close,Volume\n" + rows, **STOCK)
    assert bars(found)[0][0] == "2024-01-02T15:00Z"


def test_of_a_header_with_several_tickers_the_one_that_is_asked_for_is_read(tmp_path: Path) -> None:
    text = (
        "Price,Close,Close,High,High,Low,Low,Open,Open,Volume,Volume\nTicker,AAPL,MSFT,AAPL,MSFT,AAPL,MSFT,AAPL,MSFT,AAPL,MSFT\n"
        "Date,,,,,,,,,,\n2024-01-02,185.6,370.1,188.4,375,183.8,366.7,187.1,373.8,1,2\n2024-01-03,184,370,185,373,183,368,184,369,1,2\n"
    )
    found = read(tmp_path, text, **STOCK, interval="1d")
    assert ([one.close for one in found.candles], found.left_out) == ([185.6, 184.0], {"of other symbols": 2})
    with pytest.raises(FileError, match=r"the ticker in the header is 'AAPL', and --symbol IBM\.XNYS names another"):
        read(tmp_path, text, symbol="IBM.XNYS", calendar="XNYS", interval="1d")


@pytest.mark.parametrize(
    ("date", "problem"), [("1900-01-02", "is before 1970; remove the earlier bars"), ("2100-01-04", "is in the future")]
)
@pytest.mark.parametrize("calendar", ["XNYS", "24x7"])
def test_a_year_that_no_calendar_reaches_is_refused_as_what_it_is(tmp_path: Path, date: str, problem: str, calendar: str) -> None:
    with pytest.raises(FileError, match=f"line 2: Date is '{date}', which {problem}"):
        read(tmp_path, f"Date,Open,High,Low,Close,Volume\n{date},{DAY}\n", symbol="AAPL.XNAS", calendar=calendar, interval="1d")


def test_an_hour_that_clocks_skip_is_refused_in_one_sentence(tmp_path: Path) -> None:
    rows = "".join(f"2024-03-10 {clock},{ROW}\n" for clock in ("01:00", "01:30", "02:00", "03:00"))
    with pytest.raises(FileError, match=r"line 4: time is '2024-03-10 02:00', which does not exist in time zone America/New_York: clocks"):
        read(tmp_path, "time,open,high,low,close,volume\n" + rows, **BTC, interval="30m", time_zone="America/New_York")


def test_an_hour_that_clocks_repeat_is_in_order(tmp_path: Path) -> None:
    clocks = ("00:30", "01:00", "01:30", "01:00", "01:30", "02:00")
    rows = "".join(f"2024-11-03 {clock},{ROW}\n" for clock in clocks)
    found = read(tmp_path, "time,open,high,low,close,volume\n" + rows, **BTC, interval="30m", time_zone="America/New_York")
    opens = [one.ts_open_ms for one in found.candles]
    assert [after - before for before, after in pairwise(opens)] == [30 * 60_000] * 5
    assert not found.notes


@pytest.mark.parametrize(
    ("days", "apart"),
    [
        (["01-01", "02-01", "03-01", "04-01"], "a month or more apart"),
        (["01-02", "04-01", "07-01", "10-01"], "a month or more apart"),
        (["01-05", "01-12", "01-18", "01-26", "02-02", "02-09"], "1w apart"),  # one week ends on a Thursday
    ],
)
@pytest.mark.parametrize("calendar", ["24x7", "XNYS"])
def test_months_and_weeks_are_no_daily_bars(tmp_path: Path, days: list[str], apart: str, calendar: str) -> None:
    rows = "".join(f"2024-{day},{DAY}\n" for day in days if calendar == "24x7" or day != "01-01")
    with pytest.raises(FileError, match=f"the rows are {apart}, but the interval is 1d"):
        read(tmp_path, "Date,Open,High,Low,Close,Volume\n" + rows, symbol="AAPL.XNAS", calendar=calendar, interval="1d")


def test_the_header_that_joined_files_repeat_is_no_row(tmp_path: Path) -> None:
    header = "Date,Open,High,Low,Close,Volume\n"
    text = f"{header}2024-01-02,{DAY}\n{header}2024-01-03,{DAY}\n"
    assert len(read(tmp_path, text, **STOCK, interval="1d").candles) == 2


def test_a_close_that_is_the_last_millisecond_of_its_bar_is_its_end(tmp_path: Path) -> None:
    rows = "".join(f"2024-01-01T00:0{at}:59.999Z,{ROW}\n" for at in range(3))
    found = read(tmp_path, "time,open,high,low,close,volume\n" + rows, **BTC, interval="1m", stamp="close")
    assert [one.ts_open_ms for one in found.candles] == [START_MS + at * 60_000 for at in range(3)]


def test_a_zstandard_file_that_is_cut_off_is_damaged(tmp_path: Path) -> None:
    packed = bytes(cramjam.zstd.compress(f"time,open,high,low,close,volume\n2024-01-01T00:00Z,{ROW}\n".encode() * 50))
    with pytest.raises(FileError, match=r"bars\.csv is damaged: it cannot be decompressed"):
        read(tmp_path, packed[:-8], **BTC)


def test_numbers_are_grouped_as_in_india(tmp_path: Path) -> None:
    row = '"1,04,283.50","1,04,298.00","1,04,261.00","1,04,290.00","12,34,567"'
    text = f"Date,Open,High,Low,Close,Volume\n02-Jan-2024,{row}\n03-Jan-2024,{row}\n"
    found = read(tmp_path, text, symbol="MRF.XBOM", calendar="XBOM", interval="1d").candles
    assert [(one.open, one.close, one.volume) for one in found] == [(104_283.5, 104_290.0, 1_234_567.0)] * 2


def test_a_price_that_databento_leaves_undefined_is_no_price(tmp_path: Path) -> None:
    undefined = ",".join([str(2**63 - 1)] * 4)
    prices = [undefined, *["4820250000000,4821000000000,4820000000000,4820750000000"] * 2]
    rows = "".join(f"{START_MS + 60_000 * at}000000,33,1,1,{one},100,ESH4\n" for at, one in enumerate(prices))
    head = "ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol\n"
    found = read(tmp_path, head + rows, symbol="ESH4=ESH24.XCME", calendar="24x7")
    assert ([one.open for one in found.candles], found.left_out) == ([4820.25] * 2, {"without prices": 1})


def test_symbols_that_a_mapping_does_not_name_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = "".join(f"{name},{START_MS + 60_000 * at},{ROW}\n" for at in range(3) for name in ("BTC/USDT", "ETH/USDT"))
    text = "symbol,timestamp,open,high,low,close,volume\n" + rows
    found = read(tmp_path, text, symbol="BTC/USDT=BTC-USDT.BINA", interval="1m")
    assert ({one.symbol for one in found.candles}, found.left_out) == ({"BTC-USDT.BINA"}, {"of other symbols": 3})
    with pytest.raises(FileError, match=r"symbol is 'BTC/USDT', and --symbol maps 'SOL/USDT'; add 'BTC/USDT=BTC-USDT\.VENUE'"):
        read(tmp_path, text, symbol="SOL/USDT=SOL-USDT.BINA", interval="1m")


def test_columns_may_be_numbered(tmp_path: Path) -> None:
    text = f"date,1. open,2. high,3. low,4. close,5. volume\n2024-01-02,{DAY}\n2024-01-03,{DAY}\n"
    assert read(tmp_path, text, **STOCK, interval="1d").candles[0].volume == 1_000.0


def test_american_dates_without_a_header_are_read(tmp_path: Path) -> None:
    rows = f"01/02/2024,09:30,{DAY}\n01/02/2024,09:31,{DAY}\n01/16/2024,09:31,{DAY}\n"
    assert bars(read(tmp_path, rows, **STOCK, interval="1m"))[0] == ("2024-01-02T14:30Z", "2024-01-02T14:31Z")
