"""Bars of DataFrames are those that files of the same rows give, and what is wrong is said with row, column and value."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aquiline
from aquiline import Bars
from services.backtest.feed import MODE
from services.core.clock import SystemClock
from services.feeds.files import ReadOptions, read_candles
from tests.unit.aquiline.frames import minutes

SYMBOL = "BTC-USD.CBSE"


def three(**changes: Any) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "time": pd.date_range("2024-01-02 10:00", periods=3, freq="1min", tz="UTC"),
            "open": [1.0, 2.0, 3.0],
            "high": [1.5, 2.5, 3.5],
            "low": [0.5, 1.5, 2.5],
            "close": [1.2, 2.2, 3.2],
            "volume": [10, 0, 30],
        }
    )
    return frame.assign(**changes)


def daily() -> pd.DataFrame:
    return three(time=pd.to_datetime(["2024-01-02", "2024-01-03", "2024-01-04"])).set_index("time")


def test_a_frame_and_a_file_of_the_same_rows_give_the_same_candles(tmp_path: Path) -> None:
    frame, file = minutes(), tmp_path / "bars.csv"
    frame.to_csv(file, index=False)
    options = ReadOptions(run_mode=MODE, symbol=None, interval="1m", calendar="24x7", now_ms=SystemClock().now_ms())
    assert list(Bars(frame, interval="1m").data.candles) == list(read_candles(file, options).candles)


@pytest.mark.parametrize("convert", [pl.from_pandas, pa.Table.from_pandas, lambda frame: frame.set_index("time")])
def test_polars_pyarrow_and_an_index_of_times_give_the_same_bars_as_pandas(convert: Callable[[pd.DataFrame], Any]) -> None:
    given = convert(three())
    bars = Bars(given, symbol=SYMBOL)
    assert bars.data.candles == Bars(three(), symbol=SYMBOL).data.candles
    assert isinstance(bars.frame, type(given))


def test_the_frame_of_bars_gives_the_same_bars_again() -> None:
    bars = aquiline.sample()
    again = Bars(bars.frame, calendar="XNYS", price_adjustment="none")
    assert again.data.candles == sorted(bars.data.candles, key=lambda one: (one.ts_close_ms, one.symbol))
    assert (again.symbols, again.intervals, len(again)) == (bars.symbols, bars.intervals, 12_154)


def test_dates_are_sessions_and_tickers_side_by_side_are_symbols() -> None:
    bars = Bars(daily(), symbol="AAPL.XNAS", calendar="XNYS")
    assert str(bars.frame["time"].iloc[0]) == "2024-01-02 14:30:00+00:00"
    wide = pd.concat({"AAPL": daily(), "MSFT": daily().iloc[1:]}, axis=1).swaplevel(axis=1)
    both = Bars(wide, symbol={"AAPL": "AAPL.XNAS", "MSFT": "MSFT.XNAS"}, interval="1d", calendar="XNYS")
    assert both.symbols == ["AAPL.XNAS", "MSFT.XNAS"]
    assert len(both) == 5
    assert "1 rows left out: without prices" in both.notes


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=30), st.sampled_from([1, 5, 15, 30]))
def test_whatever_the_prices_every_row_is_a_bar_with_its_own_values(closes: list[float], step: int) -> None:
    prices = [round(close, 2) for close in closes]
    times = pd.date_range("2024-01-02", periods=len(prices), freq=f"{step}min", tz="UTC")
    frame = pl.DataFrame({"time": times, **dict.fromkeys(("open", "high", "low", "close"), prices)})
    bars = Bars(frame, symbol=SYMBOL, interval=f"{step}m")
    assert bars.frame["close"].to_list() == prices
    assert bars.frame["time"].to_list() == [time.to_pydatetime() for time in times]


NAN = float("nan")


@pytest.mark.parametrize(
    ("frame", "arguments", "said"),
    [
        (three(), {}, "no column has a symbol; set symbol, such as AAPL.XNAS"),
        (three(), {"symbol": "btc"}, "symbol 'btc' is not a symbol with its venue"),
        (three().drop(columns="close"), {}, "there is no column for close; the columns are time, open, high, low, volume"),
        (three().drop(columns="time"), {}, "there is no column for the time"),
        (three()[::-1], {}, "row 1: time is 2024-01-02 10:01:00+00:00, which is not after that of row 0 (2024-01-02 10:02:00+00:00); sort"),
        (
            three(time=three()["time"].dt.tz_localize(None)),
            {},
            "row 0: time is 2024-01-02 10:00:00, which has no time zone; pass time_zone",
        ),
        (three(close=[1.2, NAN, 3.2]), {}, "row 1: close is nan; every bar needs all four prices"),
        (three(high=0.1), {}, "low and high do not enclose open and close"),
        (three(close=["1.2", "x", "3.2"]), {}, "row 1: close is 'x'"),
        (three()[:0], {}, "the DataFrame has no rows"),
        ([1, 2], {}, "a pandas, polars or pyarrow DataFrame is expected, not list"),
        (three(), {"calendar": "NYSE?"}, "calendar 'NYSE?' is none of"),
        (three(), {"price_increment": "0.7"}, "price_increment of BTC-USD.CBSE: 0.7 does not fit"),
        (three(), {"time_zone": "Mars"}, "time_zone names time zone 'Mars', which is not known"),
        (three(), {"features": ["mom"]}, "features names 'mom', which is no column"),
        (three(rsi=1.0), {"features": ["rsi"]}, "features: the feature name 'rsi' is taken by the service"),
        (three(mom=["a", "b", "c"]), {"features": ["mom"]}, "row 0: mom is 'a'; a feature is a number"),
        (three(time=pd.date_range("2924-01-02", periods=3, freq="1min", tz="UTC")), {}, "is in the future"),
    ],
)
def test_what_is_wrong_with_a_frame_is_said_in_its_own_terms(frame: Any, arguments: dict[str, Any], said: str) -> None:
    if "symbol" not in arguments and not said.startswith("no column has a symbol"):
        arguments = {"symbol": SYMBOL, **arguments}
    with pytest.raises(ValueError, match=re.escape(said)):
        Bars(frame, **arguments)


def test_naive_times_are_read_in_the_zone_that_is_given_and_may_repeat_an_hour() -> None:
    naive = three(time=pd.to_datetime(["2024-11-03 01:30", "2024-11-03 01:00", "2024-11-03 01:30"]))
    bars = Bars(naive, symbol=SYMBOL, interval="30m", time_zone="America/New_York")
    assert bars.frame["time"].dt.strftime("%H:%M").tolist() == ["05:30", "06:00", "06:30"]
