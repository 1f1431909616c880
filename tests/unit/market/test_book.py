"""Books: what each candle becomes, and how corrections and splits reach the bars built from others."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schemas import Candle, Dividend, MarketFeatures, RunMode
from services.core.folding.bar_fold import Fold
from services.feeds.samples import load_instruments, load_splits, load_stocks
from services.market.aggregate import Ohlcv
from services.market.book import Book, check_plan
from services.market.indicators import RECURSIVE, WARM_UP_BARS
from services.market.series import KEPT_BARS, Series
from tests.unit.market.build import HOUR, MINUTE, MODE, MONDAY, SYMBOL, candle, instrument, ms, split

PLAN = {"1m": ["15m", "1h"]}


def book(plan: dict[str, list[str]] | None = None) -> Book:
    return Book(instrument(), (), PLAN if plan is None else plan)


def bar_of(one: Candle) -> Ohlcv:
    return Ohlcv(one.ts_open_ms, one.ts_close_ms, one.open, one.high, one.low, one.close, one.volume, one.revision)


def test_a_candle_comes_out_with_its_features_before_the_bars_built_from_it() -> None:
    taken = book().take(candle(MONDAY), 0)
    assert taken.fold is Fold.FOLDED
    assert [(out.interval, out.closed) for out in taken.out] == [("1m", True), ("15m", False), ("1h", False)]
    assert taken.out[1].ts_close_ms == MONDAY + 15 * MINUTE


def test_the_last_minute_of_a_window_closes_its_bar() -> None:
    minutes = book()
    out = [minutes.take(candle(MONDAY + number * MINUTE, 10 + number), number).out for number in range(60)]
    assert [(bar.interval, bar.closed) for bar in out[14]] == [("1m", True), ("15m", True), ("1h", False)]
    assert [(bar.interval, bar.closed) for bar in out[59]] == [("1m", True), ("15m", True), ("1h", True)]
    assert (out[59][2].open, out[59][2].close, out[59][2].volume) == (10, 69, 60)


@pytest.mark.parametrize(
    ("again", "fold"),
    [
        (candle(MONDAY + MINUTE), Fold.DUPLICATE),
        (candle(MONDAY + MINUTE, revision=3), Fold.DUPLICATE),
        (candle(MONDAY + MINUTE, 11), Fold.CONFLICT),
        (candle(MONDAY + MINUTE, 11, revision=1), Fold.REVISED),
        (candle(MONDAY, 11, revision=1), Fold.REVISED),
        (candle(MONDAY - MINUTE), Fold.LATE),
        (candle(MONDAY + MINUTE, closed=False), Fold.LATE),
        (candle(MONDAY + MINUTE + 1, close_ms=MONDAY + 2 * MINUTE + 1), Fold.CONFLICT),
        (candle(MONDAY + 2 * MINUTE), Fold.FOLDED),
    ],
)
def test_a_bar_is_folded_ignored_or_refused_by_its_time_values_and_revision(again: Candle, fold: Fold) -> None:
    minutes = book()
    minutes.take(candle(MONDAY), 0)
    minutes.take(candle(MONDAY + MINUTE), 1)
    taken = minutes.take(again, 2)
    assert taken.fold is fold
    assert bool(taken.out) == (fold in {Fold.FOLDED, Fold.REVISED})
    assert bool(taken.detail) == (fold in {Fold.CONFLICT, Fold.LATE})


def test_forming_bars_move_on_and_never_back() -> None:
    minutes = book()
    assert minutes.take(candle(MONDAY + MINUTE, 10, closed=False), 0).fold is Fold.FOLDED
    assert minutes.take(candle(MONDAY + MINUTE, 10, closed=False), 1).fold is Fold.DUPLICATE
    assert minutes.take(candle(MONDAY + MINUTE, 11, closed=False), 2).fold is Fold.FOLDED
    assert minutes.take(candle(MONDAY, 11, closed=False), 3).fold is Fold.LATE


def test_a_forming_bar_is_not_built_into_higher_ones() -> None:
    assert [out.interval for out in book().take(candle(MONDAY, closed=False), 0).out] == ["1m"]


def test_a_correction_corrects_the_higher_bars_too() -> None:
    minutes = book()
    for number in range(20):
        minutes.take(candle(MONDAY + number * MINUTE), number)
    out = minutes.take(candle(MONDAY + 3 * MINUTE, 20, revision=1), 20).out
    assert [(bar.interval, bar.closed, bar.revision, bar.high) for bar in out] == [
        ("1m", True, 1, 20.2),
        ("1m", True, 0, 10.1),
        ("15m", True, 1, 20.2),
        ("1h", False, 1, 20.2),
    ]
    later = minutes.take(candle(MONDAY + 20 * MINUTE), 21).out
    assert later[-1].high == 20.2


def test_a_correction_of_a_bar_gives_the_features_it_would_have_had() -> None:
    wrong, right = book(), book()
    for number in range(60):
        wrong.take(candle(MONDAY + number * MINUTE, 10 + number % 7), number)
        correct = right.take(candle(MONDAY + number * MINUTE, 30 if number == 40 else 10 + number % 7), number)
        if number == 40:
            expected = correct.out[0].features
    assert wrong.take(candle(MONDAY + 40 * MINUTE, 30, revision=1), 60).out[0].features == expected
    after = candle(MONDAY + 60 * MINUTE, 12)
    assert wrong.take(after, 61).out[0].features == right.take(after, 61).out[0].features


def test_a_correction_of_an_older_bar_publishes_the_newest_one_again_with_the_features_it_would_have_had() -> None:
    wrong, right = book(), book()
    for number in range(60):
        wrong.take(candle(MONDAY + number * MINUTE, 10 + number % 7), number)
        expected = right.take(candle(MONDAY + number * MINUTE, 30 if number == 40 else 10 + number % 7), number).out[0]
    newest = wrong.take(candle(MONDAY + 40 * MINUTE, 30, revision=1), 60).out[1]
    assert newest == expected


def test_features_that_bars_no_longer_held_enter_into_are_absent_after_a_correction() -> None:
    """After a restart too, when the bars before those read back were never seen."""
    series = Series()
    for number in range(KEPT_BARS + 100):
        series.fold(bar_of(candle(MONDAY + number * MINUTE, 10 + number % 7)), number)
    first = next(iter(series.between(0, MONDAY + KEPT_BARS * HOUR)))
    for index, known in ((100, False), (WARM_UP_BARS - 2, False), (WARM_UP_BARS - 1, True), (KEPT_BARS - 1, True)):
        corrected = series.fold(bar_of(candle(first.ts_open_ms + index * MINUTE, 12.5, revision=1)), 1_000)
        assert corrected.features is not None
        assert (corrected.features.keys() >= RECURSIVE) == known
        assert corrected.features.keys() >= {"ret_1", "ret_5", "bb_width", "body"}


def test_bars_that_are_built_here_are_not_taken_from_elsewhere() -> None:
    minutes = book()
    assert minutes.take(candle(MONDAY - HOUR, interval="1h"), 0).fold is Fold.FOLDED
    minutes.take(candle(MONDAY), 1)
    assert minutes.take(candle(MONDAY, interval="1h"), 2).fold is None


def test_intervals_may_be_built_in_steps() -> None:
    steps, direct = book({"1m": ["15m"], "15m": ["1h"]}), book({"1m": ["1h"]})
    hours: tuple[list[MarketFeatures], list[MarketFeatures]] = ([], [])
    for number in range(180):
        one = candle(MONDAY + number * MINUTE, 10 + number % 13)
        for built, into in zip((steps, direct), hours, strict=True):
            into.extend(out for out in built.take(one, number).out if out.interval == "1h" and out.closed)
    assert hours[0] == hours[1]
    assert len(hours[0]) == 3


def test_a_plan_builds_no_interval_twice() -> None:
    with pytest.raises(ValueError, match="1h bars would be built from 1m and from 15m bars; name 1h once"):
        check_plan({"1m": ["15m", "1h"], "15m": ["1h"]})


def test_a_split_restates_the_past_so_that_features_do_not_jump() -> None:
    plain = book({"1m": ["1h"]})
    halved = Book(instrument(), [split(MONDAY + 90 * MINUTE, 2.0)], {"1m": ["1h"]})
    for number in range(150):
        price = 10 + number % 7
        after = number >= 90
        expected = plain.take(candle(MONDAY + number * MINUTE, price / 2 if after else price, volume=3), number).out
        found = halved.take(candle(MONDAY + number * MINUTE, price / 2 if after else price, volume=3), number).out
        if number < 90:
            assert found == expected
    assert found[0].features["ret_1"] == pytest.approx(expected[0].features["ret_1"])
    assert found[0].features["atr"] < expected[0].features["atr"] * 1.5
    # The hour in which the split fell keeps the units of its open until it is over; the next one is in the new units.
    assert halved.take(candle(MONDAY + 150 * MINUTE, 8), 150).out[1].high < 9


@pytest.mark.parametrize("returns", ["total", "price"])
def test_a_dividend_leaves_no_step_in_the_features_where_returns_are_total(returns: str) -> None:
    ex_ms, total = MONDAY + 40 * MINUTE, returns == "total"
    shape = [10 + number * 3 % 7 / 10 for number in range(60)]
    gone = 1 - 0.2 / shape[39]
    paid = Dividend(schema_version=1, run_mode=MODE, symbol=SYMBOL, event="dividend", amount=0.2, effective_ms=ex_ms)
    one, even = Book(instrument().model_copy(update={"returns": returns}), [paid], {"1m": ["1h"]}), book({})
    for number, price in enumerate(shape):
        traded = price if number < 40 else price * gone
        out = one.take(candle(MONDAY + number * MINUTE, traded), number).out
        expected = even.take(candle(MONDAY + number * MINUTE, price * gone), number).out[0].features
        assert out[0].close == traded, "a message has the price that was traded"
        if number >= 40:
            assert (out[0].features == pytest.approx(expected, rel=1e-6, abs=1e-9)) == total
    assert out[1].close == pytest.approx(shape[59] if total else shape[59] * gone), "an hour is in the terms of its open"


def test_the_hour_of_a_split_stays_in_the_units_of_its_open() -> None:
    halved = Book(instrument(), [split(MONDAY + 30 * MINUTE, 2.0)], {"1m": ["1h"]})
    for number in range(60):
        out = halved.take(candle(MONDAY + number * MINUTE, 10 if number < 30 else 5, volume=2 if number < 30 else 4), number).out
    hour = out[1]
    assert (hour.closed, hour.open, hour.close, hour.volume) == (True, 10, 10, 120)
    assert out[0].features["ret_1"] == 0
    assert out[0].features["atr"] == pytest.approx(0.1)


def test_real_splits_leave_no_step_in_the_features_of_real_stocks() -> None:
    bars = load_stocks(RunMode.DEMO)["AAPL.XNAS"]
    splits = [event for event in load_splits(RunMode.DEMO) if event.symbol == "AAPL.XNAS"]
    apple = Book(load_instruments(RunMode.DEMO)[0], splits, {"1d": ["1w"]})
    days = {}
    for offset, bar in enumerate(bars):
        for out in apple.take(bar, offset).out:
            if out.interval == "1d":
                days[out.ts_close_ms] = out.features
    day = days[ms("2005-02-28T21:00")]
    assert day["ret_1"] == pytest.approx(44.86 / (88.99 / 2) - 1)
    assert day["atr"] < 1.5
    # 2000-09-29 was a fall, not a split.
    assert days[ms("2000-09-29T20:00")]["ret_1"] == pytest.approx(-0.5187, abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60), st.booleans()), min_size=330, max_size=420),
    st.integers(1, 419),
)
def test_a_book_rebuilt_from_where_it_says_goes_on_as_the_first_one(moves: list[tuple[int, int, bool]], cut: int) -> None:
    candles: list[Candle] = []
    at = MONDAY
    for gap, price, forming in moves:
        at += gap * MINUTE
        if forming:
            candles.append(candle(at, price + 0.5, closed=False))
        candles.append(candle(at, price))
        at += MINUTE
    cut = min(cut, len(candles) - 1)
    first, second = book({"1m": ["3m"]}), book({"1m": ["3m"]})
    for offset, one in enumerate(candles[:cut]):
        first.take(one, offset)
    start = first.needed_from()
    assume(start is not None)  # nothing but a forming bar is nothing to restore
    assert start is not None
    for offset in range(start, cut):
        second.take(candles[offset], offset)
    for offset in range(cut, len(candles)):
        expected, found = first.take(candles[offset], offset), second.take(candles[offset], offset)
        assert found.fold == expected.fold
        for mine, theirs in zip(found.out, expected.out, strict=True):
            assert mine.model_copy(update={"features": {}}) == theirs.model_copy(update={"features": {}})
            assert mine.features == pytest.approx(theirs.features, rel=1e-5, abs=1e-6)


def test_what_a_rebuild_reads_is_bounded_by_the_slowest_interval() -> None:
    minutes = book({"1m": ["15m"]})
    for number in range(15 * (KEPT_BARS + 100)):
        minutes.take(candle(MONDAY + number * MINUTE), number)
    needed = minutes.needed_from()
    assert needed is not None
    assert 99 * 15 <= needed <= 101 * 15


def test_a_correction_leaves_bars_between_sessions_out_of_the_week_as_its_building_did() -> None:
    apple = Book(instrument("AAPL.XNAS", calendar="XNYS"), (), {"1h": ["1w"]})
    hours = [ms(f"2024-07-01T{hour}:00") for hour in (18, 21, 22)] + [ms("2024-07-02T18:00")]
    for offset, open_ms in enumerate(hours):
        apple.take(candle(open_ms, 10 + offset, symbol="AAPL.XNAS", interval="1h"), offset)
    week = apple.take(candle(hours[0], 10, symbol="AAPL.XNAS", interval="1h", volume=5, revision=1), 9).out[-1]
    assert (week.interval, week.volume, week.close) == ("1w", 6.0, 13)
