"""What is played and when: phases that end with the data, bars spread over the time between them, history before it all."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.settings import SettingsError
from services.demo.script import Phase, Wanted
from tests.unit.demo.build import DAY_MS, FIRST_MS, script

LONG_AGO = dt.date(2000, 1, 1)


def wanted(bars: int = 80, pace: float = 1.5, *, burst: bool = True, outage: bool = True, start: dt.date | None = None) -> Wanted:
    return Wanted(bars, pace, burst=burst, outage=outage, start=start, history_from=LONG_AGO)


def test_it_ends_where_the_data_end() -> None:
    assert script(wanted()).acts[-1].until_ms == FIRST_MS + 400 * DAY_MS


def test_it_starts_where_it_is_told() -> None:
    written = script(wanted(burst=False, outage=False, start=dt.date(2012, 2, 1)))
    assert written.acts[0].bars[0][1].ts_close_ms == FIRST_MS + 30 * DAY_MS
    assert written.history[-1].ts_close_ms == FIRST_MS + 29 * DAY_MS


def test_phases_follow_each_other_and_can_be_left_out() -> None:
    assert [act.phase for act in script(wanted()).acts] == list(Phase)
    assert [act.phase for act in script(wanted(burst=False)).acts] == [Phase.PACED, Phase.OUTAGE, Phase.RECOVERY]
    assert [act.phase for act in script(wanted(burst=False, outage=False)).acts] == [Phase.PACED]


def test_the_burst_is_ten_seconds_at_ten_times_the_pace() -> None:
    burst = script(wanted()).act(Phase.BURST)
    assert burst is not None
    assert (burst.steps, round(burst.duration_s, 6)) == (150, 10.0)


def test_bars_that_close_together_are_spread_over_the_time_until_the_next() -> None:
    paced = script(wanted(bars=2, pace=2.0, burst=False, outage=False)).acts[0]
    assert [due_s for due_s, _ in paced.bars] == [0.0, 0.25, 0.5, 0.75]


def test_history_begins_where_it_is_told() -> None:
    written = script(Wanted(80, 1.5, burst=False, outage=False, start=None, history_from=dt.date(2012, 6, 1)))
    assert min(candle.ts_close_ms for candle in written.history) == FIRST_MS + 151 * DAY_MS


@pytest.mark.parametrize(("bars", "start"), [(399, None), (80, dt.date(2030, 1, 1)), (80, dt.date(1999, 1, 1))])
def test_data_too_short_are_refused_with_what_would_help(bars: int, start: dt.date | None) -> None:
    with pytest.raises(SettingsError, match=r"are to be played.*--bars"):
        script(wanted(bars=bars, start=start))


@given(bars=st.integers(1, 100), pace=st.floats(0.5, 3.0), burst=st.booleans(), outage=st.booleans())
def test_every_bar_is_played_once_in_event_time_and_belongs_to_the_phase_that_plays_it(
    *, bars: int, pace: float, burst: bool, outage: bool
) -> None:
    written = script(wanted(bars, pace, burst=burst, outage=outage), count=700)
    played = [candle for act in written.acts for _, candle in act.bars]
    everything = [*written.history, *played]
    assert len({(candle.symbol, candle.ts_close_ms) for candle in everything}) == len(everything) == 700 + 60
    assert all(one.ts_close_ms <= other.ts_close_ms for one, other in pairwise(everything))
    assert written.candles == len(played)
    for act in written.acts:
        assert all(due <= other for (due, _), (other, _) in pairwise(act.bars))
        assert all(written.phase_at(candle.ts_close_ms) is act.phase for _, candle in act.bars)
