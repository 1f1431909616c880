"""A simulated week: two workers that read in different ways write the same prompts, and the engine has nearly all of them already."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
import structlog

from services.core.fusion_settings import FusionSettings
from tests.unit.fusion_week.desk import Asked, AsOf, Told
from tests.unit.fusion_week.feed import MINUTE, OPENS, SYMBOLS
from tests.unit.fusion_week.play import BACK_MS, Play, Played

LEAST_HITS = 0.95


@pytest.fixture(scope="module")
def played() -> Played:
    """Play the week once: defaults but for fewer slow bars (three days of history fill them) and a question every second minute."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        return asyncio.run(Play(1, FusionSettings(slow_window_bars=12, min_gap_ms=2 * MINUTE)).run())
    finally:
        structlog.reset_defaults()


def hashes(told: Told) -> dict[AsOf, str]:
    """Return the hash of the prompt by what it rests on; a second prompt with the same as-of must be the same."""
    found: dict[AsOf, str] = {}
    for one in told.asked:
        assert found.setdefault(one.as_of, one.hash) == one.hash, one.as_of
    return found


def first_of_sessions(told: Told) -> list[Asked]:
    """Return the first prompt of each symbol within five minutes of each open."""
    firsts: dict[tuple[int, str], Asked] = {}
    for one in told.asked:
        for open_ms in OPENS:
            if open_ms < one.at_ms <= open_ms + 5 * MINUTE:
                firsts.setdefault((open_ms, one.as_of.lane.symbol), one)
    return list(firsts.values())


def test_the_week_holds_what_makes_a_week_hard(played: Played) -> None:
    kinds = played.kinds
    assert min(kinds.missing, kinds.revised, kinds.forming, kinds.without_vision, kinds.lost_in_outage, kinds.delivered_late) > 20
    assert len(OPENS) == 5
    for told in (played.steady, played.erratic):
        assert {one.as_of.lane.symbol for one in told.asked} == set(SYMBOLS)
        assert told.blocked, "bars that are missing after the outage should have blocked"


def test_two_workers_write_the_same_prompts_to_the_id(played: Played) -> None:
    """One reads in other batches and another order, is killed on Wednesday and rebuilds from the log two hours later."""
    steady, erratic = hashes(played.steady), hashes(played.erratic)
    common = steady.keys() & erratic.keys()
    assert [as_of for as_of in common if steady[as_of] != erratic[as_of]] == []
    assert len(common) > len(erratic) / 2
    after = {one.as_of for one in played.erratic.asked if one.at_ms > BACK_MS} & common
    assert len(after) > 500, "a rebuilt worker's prompts should be among those compared"


@pytest.mark.parametrize("who", [lambda played: played.steady, lambda played: played.erratic], ids=["steady", "erratic"])
def test_prefixes_are_hit_on_path(played: Played, who: Callable[[Played], Told], record_property: Callable[[str, object], None]) -> None:
    hits = who(played).hits()
    record_property("hits", hits)
    assert hits >= LEAST_HITS


def test_opening_bells_are_hit_although_the_engine_forgets_every_night(
    played: Played, record_property: Callable[[str, object], None]
) -> None:
    firsts = first_of_sessions(played.steady)
    record_property("opening_hits", played.steady.hits(firsts))
    assert len(firsts) >= 4 * len(SYMBOLS), "in all sessions but the one after the outage every symbol should be asked about at once"
    assert played.steady.hits(firsts) >= LEAST_HITS
    assert min(one.cached / one.tokens for one in firsts) > 0.9
