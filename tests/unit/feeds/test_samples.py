"""The shipped stocks are what their README says."""

from __future__ import annotations

import datetime as dt
import hashlib
from itertools import pairwise

from schemas import RunMode
from services.core.calendar import SessionCalendar
from services.feeds import remake_samples, samples


def test_every_bar_is_a_session_of_new_york_and_none_is_missing() -> None:
    calendar = SessionCalendar.of("XNYS")
    stocks = samples.load_stocks(RunMode.DEMO)
    assert {symbol: len(bars) for symbol, bars in stocks.items()} == {
        "AAPL.XNAS": 3_270,
        "FB.XNAS": 196,
        "GOOG.XNAS": 2_148,
        "IBM.XNYS": 3_270,
        "MSFT.XNAS": 3_270,
    }
    for bars in stocks.values():
        assert all(calendar.bar_bounds("1d", bar.ts_open_ms) == (bar.ts_open_ms, bar.ts_close_ms) for bar in bars)
        assert [bar.ts_close_ms for bar in bars[1:]] == calendar.next_closes("1d", bars[0].ts_close_ms, len(bars) - 1)


def test_prices_are_on_the_tick_and_carry_the_run_mode() -> None:
    for bars in samples.load_stocks(RunMode.REPLAY).values():
        for bar in bars:
            assert bar.run_mode is RunMode.REPLAY
            assert all(price == round(price, 2) for price in (bar.open, bar.high, bar.low, bar.close))
    assert samples.load_stocks(RunMode.DEMO)["FB.XNAS"][0].close == 38.23


def test_the_splits_are_the_only_steps_that_prices_take_by_a_half() -> None:
    splits = {(event.symbol, event.effective_ms): event.ratio for event in samples.load_splits(RunMode.DEMO)}
    days = {
        (symbol, dt.datetime.fromtimestamp(opened / 1000, tz=dt.UTC).date().isoformat()): ratio
        for (symbol, opened), ratio in splits.items()
    }
    assert days == {("AAPL.XNAS", "2000-06-21"): 2.0, ("AAPL.XNAS", "2005-02-28"): 2.0, ("MSFT.XNAS", "2003-02-18"): 2.0}
    for symbol, bars in samples.load_stocks(RunMode.DEMO).items():
        for before, bar in pairwise(bars):
            ratio = splits.get((symbol, bar.ts_open_ms), 1.0)
            if (symbol, bar.ts_open_ms) != ("AAPL.XNAS", 970_234_200_000):
                assert 0.7 < bar.close * ratio / before.close < 1.4


def test_each_stock_has_its_instrument() -> None:
    instruments = samples.load_instruments(RunMode.DEMO)
    assert [one.symbol for one in instruments] == list(samples.load_stocks(RunMode.DEMO))
    assert {(one.currency, one.price_increment, one.calendar, one.price_adjustment) for one in instruments} == {
        ("USD", "0.01", "XNYS", "none")
    }


def test_the_shipped_files_are_the_ones_that_were_made() -> None:
    shipped = hashlib.sha256(samples.BARS_FILE.read_bytes()).hexdigest()
    assert shipped == "1c5179224dd06fd3f56ecf2df98f2fde64da576fff1c802ead24037166e96041"


def test_remaking_wants_the_one_source() -> None:
    assert remake_samples.main([]) == 2
    assert remake_samples.main([str(samples.BARS_FILE)]) == 1
