"""Books of closed bars: what is folded, what a window holds, and what is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Candle, Dividend, Instrument, RunMode
from services.core.calendar import SessionCalendar
from services.core.folding.bar_fold import Fold
from services.vision.book import ChartBook, Refusal, Window, WindowRules
from services.vision.features import compute_features
from services.vision.render import CLOSE, VOLUME, ChartSpec, Floats, render
from tests.unit.vision.build import MINUTE, START, SYMBOL, MeanForecaster, candle, instrument, split

SPEC = ChartSpec(5)
RULES = WindowRules(SPEC, max_gap_bars=2, max_jump=1.8)


def book(candles: list[Candle], of: Instrument | None = None, rules: WindowRules = RULES) -> ChartBook:
    filled = ChartBook(instrument() if of is None else of, "1m", rules)
    for offset, one in enumerate(candles):
        filled.take(one, offset)
    return filled


def drawn(of: ChartBook) -> Floats:
    window = of.window(())
    assert isinstance(window, Window)
    return window.bars


def test_window_holds_the_last_bars_and_what_the_moving_average_needs() -> None:
    candles = [candle(slot, 100 + slot) for slot in range(30)]
    window = book(candles).window(())
    assert isinstance(window, Window)
    assert (window.symbol, window.interval, window.window_end_ms) == (SYMBOL, "1m", candles[-1].ts_close_ms)
    assert window.bars[:, CLOSE].tolist() == [121.0 + k for k in range(9)]


def test_the_same_bar_again_is_a_duplicate_and_another_one_in_its_place_a_conflict() -> None:
    one = book([candle(0), candle(1)])
    assert one.take(candle(1), 2) is Fold.DUPLICATE
    assert one.take(candle(0), 3) is Fold.DUPLICATE
    assert one.take(candle(1, 101.0), 4) is Fold.CONFLICT


def test_a_correction_replaces_its_bar_and_older_ones_no_longer_do() -> None:
    one = book([candle(slot) for slot in range(9)])
    assert one.take(candle(4, 90.0, revision=2), 9) is Fold.REVISED
    assert drawn(one)[4, CLOSE] == 90.0
    assert one.take(candle(4, 95.0, revision=1), 10) is Fold.DUPLICATE
    assert drawn(one)[4, CLOSE] == 90.0


@pytest.mark.parametrize("interval", ["1d", "1h", "4h", "1w"])
@pytest.mark.parametrize("market", ["XNYS", "XHKG", "FX", "24x7"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_stride_counts_scheduled_bars_over_nights_weekends_and_holidays_from_wherever_a_book_begins(
    stride: int, market: str, interval: str
) -> None:
    calendar = SessionCalendar.of(market)
    closes = calendar.next_closes(interval, START, 40)
    bars = [bounds for close_ms in closes if (bounds := calendar.bar_bounds(interval, close_ms - 1)) is not None]
    phases = set()
    for first in (0, 7):
        held = ChartBook(instrument(calendar=market), interval, RULES)
        on: list[int] = []
        for number, (open_ms, close_ms) in enumerate(bars[first:], first):
            held.take(candle(0).model_copy(update={"interval": interval, "ts_open_ms": open_ms, "ts_close_ms": close_ms}), number)
            on += [number] * held.on_stride(stride)
        assert {number % stride for number in on} == {on[0] % stride}
        assert len(on) == len(range(on[0], len(bars), stride))
        phases.add(on[0] % stride)
    assert len(phases) == 1


def test_a_correction_that_changes_nothing_redraws_nothing() -> None:
    one = book([candle(slot) for slot in range(9)])
    assert one.take(candle(4, revision=2), 9) is Fold.DUPLICATE


def test_bars_out_of_order_are_late() -> None:
    one = book([candle(0), candle(2)])
    assert one.take(candle(1), 2) is Fold.LATE
    long = book([candle(slot) for slot in range(20)])
    assert long.take(candle(3), 20) is Fold.LATE


@pytest.mark.parametrize("mode", [RunMode.LIVE, RunMode.SHADOW])
def test_features_carry_the_run_mode_of_the_market_they_show(mode: RunMode) -> None:
    bars = [candle(slot, 100 + slot).model_copy(update={"run_mode": mode}) for slot in range(RULES.spec.history)]
    window = book(bars).window(())
    assert isinstance(window, Window)
    assert [mode] == [features.run_mode for features in compute_features([window], MeanForecaster(RULES.spec))]


def test_too_few_bars_are_refused() -> None:
    assert book([candle(0)]).window(()) is Refusal.TOO_FEW_BARS
    assert book([candle(slot) for slot in range(4)]).window(()) is Refusal.TOO_FEW_BARS
    assert isinstance(book([candle(slot) for slot in range(5)]).window(()), Window)


def test_missing_slots_are_empty_columns_up_to_a_limit() -> None:
    """Two of the five slots may be missing; a third is refused, until it has left the window."""
    kept = [candle(slot) for slot in (0, 1, 2, 3, 4, 7, 8)]
    window = drawn(book(kept))
    assert np.isnan(window[:, CLOSE]).tolist() == [False] * 5 + [True, True, False, False]
    assert not render(SPEC, window[None])[0][:, 3:9].any()
    assert book([*kept[:5], candle(8), candle(9)]).window(()) is Refusal.GAPS
    assert isinstance(book([*kept[:5], candle(8), candle(9), candle(10)]).window(()), Window)


def test_nights_and_weekends_are_no_gaps() -> None:
    """Daily bars from a Thursday to a Wednesday: five sessions, five columns side by side."""
    calendar = SessionCalendar.of("XNYS")
    closes = calendar.next_closes("1d", START, 9)
    filled = ChartBook(instrument("AAPL.XNAS", calendar="XNYS"), "1d", RULES)
    for offset, close_ms in enumerate(closes):
        bar = candle(0, symbol="AAPL.XNAS", interval="1d").model_copy(update={"ts_open_ms": close_ms - 23_400_000, "ts_close_ms": close_ms})
        filled.take(bar, offset)
    assert not np.isnan(drawn(filled)).any()


def test_an_unannounced_split_is_refused_until_it_is_announced_or_has_left() -> None:
    before = [candle(slot, 100.0, volume=4.0) for slot in range(9)]
    after = [candle(slot, 50.0, volume=8.0) for slot in range(9, 12)]
    one = book([*before, *after])
    assert one.window(()) is Refusal.SUSPECTED_SPLIT
    window = one.window([split(START + 9 * MINUTE, 2.0)])
    assert isinstance(window, Window)
    assert set(window.bars[:, CLOSE]) == {50.0}
    assert set(window.bars[:, VOLUME]) == {8.0}
    gone = book([*before, *[candle(slot, 50.0) for slot in range(9, 18)]])
    assert isinstance(gone.window(()), Window)


def test_a_split_announced_for_later_changes_nothing_yet() -> None:
    one = book([candle(slot) for slot in range(9)])
    window = one.window([split(START + 9 * MINUTE, 2.0)])
    assert isinstance(window, Window)
    assert set(window.bars[:, CLOSE]) == {100.0}


@pytest.mark.parametrize(("returns", "before"), [("total", 98.0), ("price", 100.0)])
def test_a_dividend_restates_the_bars_before_it_where_returns_are_total(returns: str, before: float) -> None:
    of = instrument().model_copy(update={"returns": returns})
    paid = Dividend(schema_version=1, run_mode=RunMode.DEMO, symbol=SYMBOL, event="dividend", amount=2.0, effective_ms=START + 6 * MINUTE)
    window = book([candle(slot, 100.0 if slot < 6 else 98.0, volume=4.0) for slot in range(9)], of=of).window([paid])
    assert isinstance(window, Window)
    assert window.bars[:, CLOSE] == pytest.approx([before] * 6 + [98.0] * 3)
    assert set(window.bars[:, VOLUME]) == {4.0}


def test_a_sparse_instrument_may_lack_bars_here_and_there_and_not_many_in_a_row() -> None:
    sparse = instrument().model_copy(update={"sparse": True})
    slots = [0, 1, 2, 3, 5, 7, 10]
    assert book([candle(slot) for slot in slots]).window(()) is Refusal.GAPS
    assert isinstance(book([candle(slot) for slot in slots], of=sparse).window(()), Window)
    assert book([candle(slot) for slot in [*slots, 14]], of=sparse).window(()) is Refusal.GAPS


def test_prices_that_come_adjusted_are_left_alone() -> None:
    one = book([candle(slot) for slot in range(9)], of=instrument(adjustment="split"))
    window = one.window([split(START + 5 * MINUTE, 2.0)])
    assert isinstance(window, Window)
    assert set(window.bars[:, CLOSE]) == {100.0}


def test_one_price_and_no_range_make_a_window() -> None:
    bars = [candle(slot).model_copy(update={"open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0, "volume": 0.0}) for slot in range(9)]
    assert render(SPEC, drawn(book(bars))[None]).shape == (1, 32, 15)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.lists(st.booleans(), min_size=60, max_size=60))
def test_a_book_rebuilt_from_where_it_says_makes_the_same_window(slots: list[int], revised: list[bool]) -> None:
    """Whatever came, in whatever order: reading the log from `needed_from` is enough."""
    log = [
        candle(slot, 100.0 + index % 3, revision=index if fresh else 0)
        for index, (slot, fresh) in enumerate(zip(slots, revised, strict=False))
    ]
    one = ChartBook(instrument(), "1m", RULES)
    for offset, bar in enumerate(log):
        one.take(bar, offset)
    start = one.needed_from()
    assert start is not None
    again = ChartBook(instrument(), "1m", RULES)
    for offset in range(start, len(log)):
        again.take(log[offset], offset)
    here, there = one.window(()), again.window(())
    if isinstance(here, Window) and isinstance(there, Window):
        assert here.window_end_ms == there.window_end_ms
        assert np.array_equal(here.bars, there.bars, equal_nan=True)
    else:
        assert here is there


def test_a_calendar_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="none of '24x7', 'FX' and the exchange calendars"):
        ChartBook(instrument(calendar="NOWHERE"), "1m", RULES)
