"""When a signal acts, in event time: from which bar on, until which, and what its wall times are in the market's.

A signal carries three clocks: the market's (`ts_event_ms` of its as-of), the broker's (`ts_ms`), and the worker's (`ts_decided_ms`,
`valid_until_ms`). Live they run together; in recorded data the last two lie years after the first.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from schemas import Signal, interval_ms
from services.core.calendar import SessionCalendar

TOLERANCE_MS: Final = 3_000
"""A decision made this long after a bar's open is taken as made at the open, or a twentieth of a shorter interval than `1m`."""
_TOLERANCE_PART: Final = 20


class Span(NamedTuple):
    """When a signal acts; all times are event times in milliseconds."""

    stands_ms: int
    """When the last bar closed that it rests on."""
    from_ms: int
    """Bars that open before this do not concern it."""
    until_ms: int
    """It opens no position in a bar that opens after this."""
    clock_ms: int
    """What is added to a wall time to have the event time."""


def span_of(signal: Signal, calendar: SessionCalendar) -> Span:
    """Return when `signal`, which has a horizon, acts; `calendar` is its instrument's.

    1. It stands after the last bar of its interval that it rests on. Its as-of may name an older record (a revision, another
       interval's bar): the horizon's end, counted back, says where the bars really ended.
    2. It acts once it is decided: as many milliseconds after that as the decision took. A record that came up to an interval late
       adds its lag; more than that means recorded data, whose clocks tell nothing of each other.
    3. Its validity is market time: it runs from the first scheduled opening at which it can act, for as long as it ran from the
       record on the worker's clock. Night and weekend do not use it up, and bars that are missing do.
    """
    market = signal.as_of.market
    stands_ms = market.ts_event_ms
    if signal.horizon_end_ms is not None and signal.horizon_bars is not None:
        behind = calendar.slots_between(signal.interval, stands_ms, signal.horizon_end_ms) - signal.horizon_bars
        if behind > 0:
            stands_ms = calendar.next_closes(signal.interval, stands_ms, behind)[-1]
    clock_ms, from_ms = _acts(signal, stands_ms)
    validity_ms = max(0, signal.valid_until_ms - market.ts_ms)
    return Span(stands_ms, from_ms, _next_opening_ms(calendar, signal.interval, from_ms) + validity_ms, clock_ms)


def change_acts_ms(signal: Signal) -> int:
    """Return from when a signal to `exit` or `hold` acts, in event time: once it is decided, whatever the calendar."""
    return _acts(signal, signal.as_of.market.ts_event_ms)[1]


def _acts(signal: Signal, stands_ms: int) -> tuple[int, int]:
    """Return what is added to a wall time to have the event time, and the event time from which the signal acts."""
    length_ms = interval_ms(signal.interval)
    lag_ms = signal.as_of.market.ts_ms - stands_ms
    clock_ms = -lag_ms + (lag_ms if 0 < lag_ms < length_ms else 0)
    return clock_ms, max(stands_ms, signal.ts_decided_ms + clock_ms - min(TOLERANCE_MS, length_ms // _TOLERANCE_PART))


def _next_opening_ms(calendar: SessionCalendar, interval: str, at_ms: int) -> int:
    """Return when the first scheduled bar opens at `at_ms` or later."""
    bounds = calendar.bar_bounds(interval, at_ms)
    if bounds is None:
        return calendar.next_open_ms(at_ms)
    opens_ms, closes_ms = bounds
    return opens_ms if opens_ms >= at_ms else calendar.next_open_ms(closes_ms) if not calendar.is_open(closes_ms) else closes_ms
