"""Higher bars: cut by the calendar, the same whatever way they are reached."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.calendar import SessionCalendar
from services.market.aggregate import Aggregator, HigherBar, Ohlcv, merge
from tests.unit.market.build import HOUR, MINUTE, MONDAY, minutes, ms

ALWAYS = SessionCalendar.of("24x7")
NEW_YORK = SessionCalendar.of("XNYS")


def bar(open_ms: int, close_ms: int, price: float = 10.0) -> Ohlcv:
    return Ohlcv(open_ms, close_ms, price, price, price, price, 1.0, 0)


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        st.tuples(st.just(ALWAYS), minutes()),
        st.tuples(st.just(NEW_YORK), minutes(start_ms=ms("2024-07-03T16:00"), max_gap=3_000)),
    ),
    st.sampled_from(["15m", "1h", "1d", "1w"]),
)
def test_each_window_is_what_its_bars_make_and_closes_once(case: tuple[SessionCalendar, list[Ohlcv]], interval: str) -> None:
    calendar, lower = case
    aggregator = Aggregator("1m", interval, calendar)
    emitted: list[tuple[int, HigherBar]] = [(index, higher) for index, part in enumerate(lower) for higher in aggregator.add(part)]
    closed = [higher.bar.ts_close_ms for _, higher in emitted if higher.closed]
    assert closed == sorted(set(closed))
    for index, higher in emitted:
        bounds = (higher.bar.ts_open_ms, higher.bar.ts_close_ms)
        assert calendar.bar_bounds(interval, higher.bar.ts_open_ms) == bounds
        parts = [part for part in lower[: index + 1] if calendar.bar_bounds(interval, part.ts_open_ms) == bounds]
        assert higher.bar == merge(parts, bounds)
        assert higher.bar.revision == sum(part.revision for part in parts)
        assert higher.closed == (lower[index].ts_close_ms >= bounds[1])
    scheduled = [part for part in lower if calendar.is_open(part.ts_open_ms)]
    assert len([1 for _, higher in emitted if higher.bar.ts_close_ms > 0]) >= len(scheduled)


@settings(max_examples=60, deadline=None)
@given(minutes(), st.data())
def test_a_corrected_bar_gives_what_correct_bars_would_have_given(lower: list[Ohlcv], data: st.DataObject) -> None:
    aggregator, right = Aggregator("1m", "1h", ALWAYS), Aggregator("1m", "1h", ALWAYS)
    index = data.draw(st.integers(0, len(lower) - 1))
    better = replace(lower[index], high=200.0, volume=7.0, revision=lower[index].revision + 1)
    corrected = [*lower[:index], better, *lower[index + 1 :]]
    for part in lower:
        aggregator.add(part)
    expected = {higher.bar.ts_close_ms: higher for part in corrected for higher in right.add(part)}
    bounds = aggregator.bounds(better.ts_open_ms)
    assert bounds is not None
    found = aggregator.revise(bounds, [part for part in corrected if bounds[0] <= part.ts_open_ms < bounds[1]])
    assert found == expected[bounds[1]]
    after = replace(lower[-1], ts_open_ms=lower[-1].ts_close_ms, ts_close_ms=lower[-1].ts_close_ms + MINUTE)
    assert aggregator.add(after) == right.add(after)


def test_a_bar_that_misses_its_last_slots_closes_when_a_later_bar_comes() -> None:
    aggregator = Aggregator("1m", "1h", ALWAYS)
    aggregator.add(bar(MONDAY, MONDAY + MINUTE))
    first, second = aggregator.add(bar(MONDAY + 2 * HOUR, MONDAY + 2 * HOUR + MINUTE))
    assert (first.closed, first.bar.ts_close_ms) == (True, MONDAY + HOUR)
    assert (second.closed, second.bar.ts_close_ms) == (False, MONDAY + 3 * HOUR)


def test_a_bar_between_sessions_is_part_of_none_but_ends_the_one_before() -> None:
    aggregator = Aggregator("1m", "1d", NEW_YORK)
    aggregator.add(bar(ms("2024-07-03T13:30"), ms("2024-07-03T13:31")))
    (ended,) = aggregator.add(bar(ms("2024-07-03T18:00"), ms("2024-07-03T18:01"), 99.0))
    assert ended.closed
    assert ended.bar.high == 10.0
    assert ended.bar.ts_close_ms == ms("2024-07-03T17:00")


def test_days_make_a_week_that_ends_with_its_last_session() -> None:
    aggregator = Aggregator("1d", "1w", NEW_YORK)
    days = ["2024-07-01T20:00", "2024-07-02T20:00", "2024-07-03T17:00", "2024-07-05T20:00"]
    out = [higher for day in days for higher in aggregator.add(bar(ms(day[:10] + "T13:30"), ms(day)))]
    assert [higher.closed for higher in out] == [False, False, False, True]
    assert (out[-1].bar.ts_open_ms, out[-1].bar.ts_close_ms) == (ms("2024-07-01T13:30"), ms("2024-07-05T20:00"))


def test_the_last_bar_of_a_session_ends_with_it() -> None:
    aggregator = Aggregator("15m", "1h", NEW_YORK)
    (higher,) = aggregator.add(bar(ms("2024-07-03T16:45"), ms("2024-07-03T17:00")))
    assert higher.closed
    assert higher.bar.ts_open_ms == ms("2024-07-03T16:30")


def test_a_break_ends_a_bar_and_the_next_begins_after_it() -> None:
    aggregator = Aggregator("30m", "4h", SessionCalendar.of("XTKS"))
    opens = ["00:00", "00:30", "01:00", "01:30", "02:00", "03:30", "04:00"]
    out = [one for at in opens for one in aggregator.add(bar(ms(f"2024-07-02T{at}"), ms(f"2024-07-02T{at}") + 30 * 60_000))]
    bounds = [(one.bar.ts_open_ms, one.bar.ts_close_ms, one.closed) for one in out]
    assert bounds[4] == (ms("2024-07-02T00:00"), ms("2024-07-02T02:30"), True)
    assert bounds[5] == (ms("2024-07-02T03:30"), ms("2024-07-02T06:00"), False)


@pytest.mark.parametrize(("lower", "higher"), [("1h", "15m"), ("1m", "1m"), ("7m", "1h")])
def test_an_interval_that_is_no_longer_multiple_is_refused(lower: str, higher: str) -> None:
    with pytest.raises(ValueError, match=f"{higher} bars cannot be built from {lower} bars"):
        Aggregator(lower, higher, ALWAYS)
