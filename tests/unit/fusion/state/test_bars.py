"""Bars against a plain dictionary, splits, and what books say of gaps, jumps and vision."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from schemas import Dividend, MarketFeatures, Restatement
from services.core.calendar import SessionCalendar
from services.core.folding.bar_fold import Fold
from services.core.restatement import LEAST_PRICE
from services.fusion.state.bars import _SLACK, Bars
from services.fusion.state.book import Book
from tests.unit.fusion import build
from tests.unit.fusion.build import MINUTE, MODE, START, SYMBOL, bar, bar_at, instrument, seen

KEEP = 10


class Folding(RuleBasedStateMachine):
    """Random bars into `Bars` and into a dictionary by `ts_close_ms`."""

    def __init__(self) -> None:
        super().__init__()
        self.bars = Bars(KEEP)
        self.model: dict[int, MarketFeatures] = {}
        self.forming: MarketFeatures | None = None
        self.features_known = True

    @property
    def last_ms(self) -> int:
        return max(self.model, default=0)

    @property
    def kept(self) -> list[int]:
        return sorted(self.model)[-KEEP:]

    def take(self, one: MarketFeatures) -> Fold:
        fold = self.bars.place(one)
        if fold is Fold.FOLDED:
            self.bars.append(one, 0)
        elif fold is Fold.REVISED:
            self.bars.revise(one)
        return fold

    @rule(ahead=st.integers(0, 3), price=st.integers(90, 110))
    def next_bar(self, ahead: int, price: int) -> None:
        one = bar_at(max(START, self.last_ms) + ahead * MINUTE, price)
        assert self.take(one) is Fold.FOLDED
        self.model[one.ts_close_ms] = one
        self.features_known = True
        if self.forming is not None and self.forming.ts_close_ms <= one.ts_close_ms:
            self.forming = None

    @precondition(lambda self: self.model)
    @rule(data=st.data(), price=st.integers(90, 110), revision=st.integers(0, 3))
    def known_bar(self, data: st.DataObject, price: int, revision: int) -> None:
        held = self.model[data.draw(st.sampled_from(sorted(self.model)))]
        one = bar_at(held.ts_open_ms, price, revision=revision)
        fold = self.take(one)
        if one.ts_close_ms not in self.kept:
            assert fold is Fold.LATE
        elif one.close == held.close:
            recomputed = one.ts_close_ms == self.last_ms and not self.features_known and revision >= held.revision
            assert fold is (Fold.REVISED if recomputed else Fold.DUPLICATE)
            if recomputed:
                self.model[one.ts_close_ms] = one
                self.features_known = True
        elif revision > held.revision:
            assert fold is Fold.REVISED
            self.model[one.ts_close_ms] = one
            self.features_known = one.ts_close_ms == self.last_ms
        else:
            assert fold is Fold.CONFLICT

    @precondition(lambda self: self.model)
    @rule(back_ms=st.integers(1, 40 * MINUTE))
    def unknown_old_bar(self, back_ms: int) -> None:
        one = bar_at(self.last_ms - MINUTE - back_ms, 100)
        if one.ts_close_ms not in self.model:
            assert self.take(one) is Fold.LATE

    @precondition(lambda self: self.model)
    @rule(over_ms=st.integers(1, MINUTE - 1))
    def overlapping_bar(self, over_ms: int) -> None:
        assert self.bars.place(bar_at(self.last_ms - over_ms, 100)) is Fold.CONFLICT

    @rule(slot=st.integers(-2, 2), price=st.integers(90, 110), with_value=st.booleans())
    def forming_bar(self, slot: int, price: int, *, with_value: bool) -> None:
        one = bar_at(max(START + 3 * MINUTE, self.last_ms) + slot * MINUTE, price, closed=False)
        fold = self.bars.form(one, one.encode() if with_value else None)
        if one.ts_close_ms <= self.last_ms or one == self.forming:
            assert fold is Fold.DUPLICATE
        elif self.forming is not None and one.ts_close_ms < self.forming.ts_close_ms:
            assert fold is Fold.LATE
        else:
            assert fold is Fold.FOLDED
            self.forming = one

    @invariant()
    def the_newest_are_held_as_they_are(self) -> None:
        assert len(self.bars) <= KEEP + _SLACK
        assert self.bars.total == len(self.model)
        held = list(zip(self.bars.ts_close, self.bars.close, self.bars.revision, strict=True))
        assert held[-KEEP:] == [(at, self.model[at].close, self.model[at].revision) for at in self.kept]
        assert self.bars.forming == self.forming
        assert bool(self.bars.features) == (bool(self.model) and self.features_known)
        for index in range(max(0, len(self.bars) - KEEP), len(self.bars)):
            assert self.bars.rendered[index] in {None, str(self.bars.close[index])}, (
                "what was made of a bar is dropped when the bar changes"
            )
            self.bars.rendered[index] = str(self.bars.close[index])


Folding.TestCase.settings = settings(max_examples=200, stateful_step_count=25, deadline=None)
TestFolding = Folding.TestCase


@given(
    prices=st.lists(st.floats(1, 1_000), min_size=1, max_size=20),
    effective=st.integers(-1, 21),
    ratio=st.sampled_from([2.0, 3.0, 0.1, 7.0, 1.5]),
)
def test_the_same_split_twice_changes_nothing_more(prices: list[float], effective: int, ratio: float) -> None:
    bars = Bars(100)
    for slot, price in enumerate(prices):
        bars.append(bar(slot, price), 0)
    changed = bars.restate(build.split(START + effective * MINUTE, ratio))
    assert changed == min(len(prices), max(0, effective))
    once = list(bars.close)
    assert bars.restate(build.split(START + effective * MINUTE, ratio)) == 0
    assert list(bars.close) == once
    for slot, price in enumerate(prices):
        assert once[slot] == (price / ratio if slot < effective else price)
        assert bars.place(bar(slot, price)) is Fold.DUPLICATE
        assert bars.place(bar(slot, price + 1)) is Fold.CONFLICT


def dividend(effective_ms: int, amount: float) -> Dividend:
    return Dividend(schema_version=1, run_mode=MODE, symbol=SYMBOL, event="dividend", amount=amount, effective_ms=effective_ms)


def held_after(*events: Restatement, returns: str = "total", adjustment: str = "none") -> Book:
    """Return a book of closes 100, 100, 98 and 98, where each event was known beforehand."""
    of = instrument(adjustment=adjustment).model_copy(update={"returns": returns})
    book = Book(of, build.settings().fusion, SessionCalendar.of("24x7"))
    for event in events:
        book.add_restatement(event)
    for slot, price in enumerate([100.0, 100.0, 98.0, 98.0]):
        book.fold_market(bar(slot, price))
    return book


@pytest.mark.parametrize(
    ("returns", "adjustment", "closes"),
    [
        ("total", "none", [98.0, 98.0, 98.0, 98.0]),
        ("total", "split", [98.0, 98.0, 98.0, 98.0]),
        ("total", "split_dividend", [100.0, 100.0, 98.0, 98.0]),
        ("price", "none", [100.0, 100.0, 98.0, 98.0]),
    ],
)
def test_a_dividend_restates_prices_alone_where_returns_are_total_and_candles_not_adjusted_for_it(
    returns: str, adjustment: str, closes: list[float]
) -> None:
    book = held_after(dividend(START + 2 * MINUTE, 2.0), returns=returns, adjustment=adjustment)
    assert list(book.bars["1m"].close) == pytest.approx(closes)
    assert list(book.bars["1m"].volume) == [1_000.0] * 4
    assert book.fold_market(bar(0, 100.0)) is Fold.DUPLICATE


def test_dividends_that_compound_past_any_sane_scale_restate_nothing_more() -> None:
    book = held_after()
    for number in range(100):
        book.add_restatement(dividend(START + 4 * MINUTE + number, 98.0 * 0.98 * 0.02**number))
    book.fold_market(bar(6, 98.0))
    assert min(book.bars["1m"].close) >= LEAST_PRICE


def test_a_dividend_that_arrives_late_restates_what_one_known_beforehand_does() -> None:
    events: list[Restatement] = [dividend(START + 2 * MINUTE, 2.0), build.split(START + 3 * MINUTE, 4.0), dividend(START + MINUTE, 1.0)]
    known = held_after(*sorted(events, key=lambda event: event.effective_ms))
    late = held_after()
    added = [late.add_restatement(event) for event in events]
    assert added == [True] * 3
    assert list(late.bars["1m"].close) == pytest.approx(list(known.bars["1m"].close))
    assert list(known.bars["1m"].close) == pytest.approx([100 / 4 * 0.98 * 0.99, 100 / 4 * 0.98, 98 / 4, 98])


def test_a_bar_that_spans_a_split_counts_as_on_the_scale_of_its_open() -> None:
    bars = Bars(100)
    bars.restate(build.split(START + 30_000, 2.0))
    bars.append(bar(0, 200.0), 0)
    bars.append(bar(1, 100.0), 0)
    assert list(bars.close) == [100.0, 100.0]
    bars.revise(bar(0, 202.0, revision=1))
    assert list(bars.close) == [101.0, 100.0]
    assert bars.place(bar(0, 202.0, revision=1)) is Fold.DUPLICATE


def test_a_jump_counts_while_its_bar_is_held_until_it_is_corrected_or_accepted() -> None:
    bars = Bars(4)
    for slot, price in enumerate([100.0, 100.0, 10.0, 10.0, 10.0]):
        bars.append(bar(slot, price), 0)
    assert bars.jump_since(0, 1.8) == START + 3 * MINUTE
    assert bars.jump_since(START + 2 * MINUTE, 1.8) == START + 3 * MINUTE
    assert bars.jump_since(START + 2 * MINUTE + 1, 1.8) is None
    bars.append(bar(5, 10.0), 0)
    assert bars.jump_since(0, 1.8) is None, "the bar before the jump is not one of the last four"
    bars = Bars(100)
    for slot, price in enumerate([100.0, 100.0, 10.0, 10.0, 10.0]):
        bars.append(bar(slot, price), 0)
    for slot in (2, 3, 4):
        bars.revise(bar(slot, 100.0, revision=1))
    assert bars.jump_since(0, 1.8) is None


def test_missing_slots_are_counted_inside_the_window_that_is_asked_for() -> None:
    book = Book(instrument(), build.settings().fusion, SessionCalendar.of("24x7"))
    for slot in (0, 1, 4, 5):
        book.fold_market(bar(slot))
    assert book.bars["1m"].missing_in(2) == 2
    assert book.bars["1m"].missing_in(1) == 0


def test_no_slot_of_a_closed_session_is_missing() -> None:
    calendar = SessionCalendar.of("XNYS")
    book = Book(instrument("AAPL.XNAS", calendar="XNYS"), build.settings().fusion, calendar)
    for close_ms in calendar.next_closes("1m", START, 800):
        book.fold_market(bar_at(close_ms - MINUTE, symbol="AAPL.XNAS"))
    assert book.bars["1m"].missing_in(100) == 0


def test_vision_is_fresh_stale_or_absent_by_event_time_whatever_came_first() -> None:
    book = Book(instrument(), build.settings(max_vision_age_bars=2).fusion, SessionCalendar.of("24x7"))
    for slot in range(5):
        book.fold_market(bar(slot))
    last_ms = START + 5 * MINUTE
    assert book.current_vision("1m").state == "absent"
    assert book.fold_vision(seen(last_ms - 3 * MINUTE)) is Fold.FOLDED
    assert book.current_vision("1m").state == "absent"
    book.fold_vision(seen(last_ms - MINUTE))
    assert (book.current_vision("1m").state, book.current_vision("1m").age_ms) == ("stale", MINUTE)
    book.fold_vision(seen(last_ms, 0.1))
    assert book.fold_vision(seen(last_ms, 0.1)) is Fold.DUPLICATE
    book.fold_vision(seen(last_ms, 0.7))
    found = book.current_vision("1m")
    assert found.features is not None
    assert (found.state, found.age_ms, found.features.p_up) == ("fresh", 0, 0.7)
    book.fold_vision(seen(last_ms + MINUTE))
    assert book.current_vision("1m").state == "fresh"
    for ahead in range(2, 10):
        book.fold_vision(seen(last_ms + ahead * MINUTE))
    assert book.fold_vision(seen(last_ms - 9 * MINUTE)) is Fold.LATE


def test_vision_features_are_waited_for_as_long_as_one_of_the_last_eight_bars_had_some() -> None:
    book = Book(instrument(), build.settings(intervals=["1m", "5m"]).fusion, SessionCalendar.of("24x7"))
    book.fold_market(bar(0))
    assert not book.awaits_vision("1m")
    book.fold_vision(seen(START + MINUTE))
    assert not book.awaits_vision("1m"), "they are there"
    book.fold_market(bar(0, interval="5m"))
    assert not book.awaits_vision("5m"), "features of one interval say nothing of another"
    awaited = []
    for slot in range(1, 12):
        book.fold_market(bar(slot))
        awaited.append(book.awaits_vision("1m"))
    assert awaited == [True] * 8 + [False] * 3
