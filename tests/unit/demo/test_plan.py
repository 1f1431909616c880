"""What is played and when: phases that end with the data, bars spread over the time between them, history before it all."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.settings import SettingsError
from services.demo.plan import Phase
from tests.unit.demo.build import DAY_MS, FIRST_MS, plan


def test_it_ends_where_the_data_end() -> None:
    assert plan().phases[-1].until_ms == FIRST_MS + 400 * DAY_MS


def test_it_starts_where_it_is_told() -> None:
    played = plan(burst=False, outage=False, start=dt.datetime(2012, 2, 1, tzinfo=dt.UTC))
    assert played.phases[0].bars[0][1].ts_close_ms == FIRST_MS + 30 * DAY_MS
    assert played.history[-1].ts_close_ms == FIRST_MS + 29 * DAY_MS


def test_phases_follow_each_other_and_can_be_left_out() -> None:
    assert [one.phase for one in plan().phases] == list(Phase)
    assert [one.phase for one in plan(burst=False).phases] == [Phase.PACED, Phase.OUTAGE, Phase.RECOVERY]
    assert [one.phase for one in plan(burst=False, outage=False).phases] == [Phase.PACED]


def test_the_burst_is_ten_seconds_at_ten_times_the_pace() -> None:
    burst = next(one for one in plan().phases if one.phase is Phase.BURST)
    assert (burst.steps, round(burst.duration_s, 6)) == (150, 10.0)


def test_bars_that_close_together_are_spread_over_the_time_until_the_next() -> None:
    paced = plan(bars=2, pace=2.0, burst=False, outage=False).phases[0]
    assert [due_s for due_s, _ in paced.bars] == [0.0, 0.25, 0.5, 0.75]


def test_history_begins_where_it_is_told() -> None:
    played = plan(burst=False, outage=False, history_from=dt.datetime(2012, 6, 1, tzinfo=dt.UTC))
    assert min(candle.ts_close_ms for candle in played.history) == FIRST_MS + 151 * DAY_MS


@pytest.mark.parametrize(
    ("bars", "start"), [(399, None), (80, dt.datetime(2030, 1, 1, tzinfo=dt.UTC)), (80, dt.datetime(1999, 1, 1, tzinfo=dt.UTC))]
)
def test_data_too_short_are_refused_with_what_would_help(bars: int, start: dt.datetime | None) -> None:
    with pytest.raises(SettingsError, match=r"the demo needs .* bars a symbol.*--bars"):
        plan(bars=bars, start=start)


@given(bars=st.integers(1, 100), pace=st.floats(0.5, 3.0), burst=st.booleans(), outage=st.booleans())
def test_every_bar_is_played_once_in_event_time_and_belongs_to_the_phase_that_plays_it(
    *, bars: int, pace: float, burst: bool, outage: bool
) -> None:
    whole = plan(700, bars=bars, pace=pace, burst=burst, outage=outage)
    played = [candle for one in whole.phases for _, candle in one.bars]
    everything = [*whole.history, *played]
    assert len({(candle.symbol, candle.ts_close_ms) for candle in everything}) == len(everything) == 700 + 60
    assert all(one.ts_close_ms <= other.ts_close_ms for one, other in pairwise(everything))
    for phase in whole.phases:
        assert all(due <= other for (due, _), (other, _) in pairwise(phase.bars))
        assert all(whole.phase_at(candle.ts_close_ms) is phase.phase for _, candle in phase.bars)
