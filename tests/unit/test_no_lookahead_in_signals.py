"""No signal is decided on what had not happened: a jump planted in a file changes no decision from before it.

The bars of `test_no_lookahead` are written to files in a layout's form and played by a backtest, as a user would, with the simulator, whose
answer depends on its prompt alone.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from schemas import Candle
from services.backtest.backtest_plan import prepare
from services.backtest.request import BacktestRequest
from services.core.calendar import SessionCalendar
from tests.cases.test_lookahead import NAIVE, STAMPS, zone_of
from tests.unit.backtest.build import OPTIONS, Ran, run
from tests.unit.fusion.build import MINUTE
from tests.unit.test_no_lookahead import BARS, FEEDS, MARKETS, SYMBOL, Feed, base_closes, candles

FIRST_DECIDED: Final = 50
"""The bar of the fastest interval from whose close on decisions are made: those before are history."""
SETTINGS: Final = ("fusion.window_bars=12", "fusion.epoch_slots=4", "fusion.slow_window_bars=4", "fusion.min_bars=3")


class Case(NamedTuple):
    """A market, what comes of it, and the form in which its files are written."""

    market: str
    feed: Feed
    layout: str


# Each market, each feed and each layout at least once.
CASES: Final = [
    Case(market, FEEDS[number % len(FEEDS)], layout)
    for number, (market, layout) in enumerate(
        zip(
            ["XNYS", "XTKS", "FX", "24x7", "XHKG", "XSHG", "CMES", "XLON", "XBOM", "XNYS"],
            ["split", "naive in the exchange's zone", *sorted(set(STAMPS) - set(NAIVE))],
            strict=True,
        )
    )
]


def test_every_market_feed_and_layout_is_among_the_cases() -> None:
    assert {case.market for case in CASES} == set(MARKETS)
    assert {case.feed for case in CASES} == set(FEEDS)
    assert {case.layout for case in CASES} == set(STAMPS)


def written(folder: Path, case: Case, made: list[Candle]) -> tuple[str, ...]:
    """Write a file for each interval; return their names."""
    header, write = STAMPS[case.layout]
    zone = zone_of(case.market)
    rows: dict[str, list[str]] = defaultdict(lambda: [f"{header},open,high,low,close,volume,interval"])
    for one in made:
        prices = ",".join(f"{price:.2f}" for price in (one.open, one.high, one.low, one.close))
        rows[one.interval].append(f"{write(one.ts_open_ms, zone)},{prices},{one.volume:.0f},{one.interval}")
    for interval, lines in rows.items():
        (folder / f"{interval}.csv").write_text("\n".join(lines) + "\n")
    return tuple(str(folder / f"{interval}.csv") for interval in rows)


async def _played(case: Case, jump_ms: int | None, folder: Path) -> Ran:
    calendar = SessionCalendar.of(case.market)
    asked = {name: getattr(OPTIONS, name) for name in BacktestRequest.__slots__} | {
        "data": written(folder, case, candles(calendar, case.feed, jump_ms, beyond=1)),
        "symbol": SYMBOL,
        "interval": None,
        "calendar": case.market,
        "intervals": ",".join([case.feed.given[0], *case.feed.built, *case.feed.given[1:]]),
        "until_ms": base_closes(calendar, case.feed)[-1],
        "since_ms": base_closes(calendar, case.feed)[FIRST_DECIDED],
        "time_zone": str(zone_of(case.market)) if case.layout in NAIVE else None,
        "assignments": SETTINGS,
    }
    return await run(await prepare(BacktestRequest(**asked)), folder / "run")


class Decision(NamedTuple):
    """What became of a trigger, and what was published on it, without ids: they name the file."""

    at_ms: int
    outcome: str
    reason: str | None
    prompt_hash: str | None
    answer: str | None
    levels: tuple[object, ...]


@functools.cache
def decisions(case: Case, jump_ms: int | None) -> list[Decision]:
    with tempfile.TemporaryDirectory() as folder:
        ran = asyncio.run(_played(case, jump_ms, Path(folder)))
        signals: dict[object, tuple[object, ...]] = {
            one.signal_id: (one.action, one.conviction, one.ref_price, one.entry, one.stop, one.target) for one in ran.signals
        }
        return [
            Decision(one.ts_done_ms, one.outcome.value, one.reason, one.prompt_hash, one.answer, signals.get(one.signal_id, ()))
            for one in ran.audits
        ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.market} {case.feed.given[0]} {case.layout}")
@settings(max_examples=2, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(at=st.integers(FIRST_DECIDED + 2, BARS - 2), inside=st.floats(0, 0.99))
def test_a_jump_changes_no_signal_that_was_decided_before_it(case: Case, at: int, inside: float) -> None:
    closes = base_closes(SessionCalendar.of(case.market), case.feed)
    jump_ms = closes[at - 1] + round(inside * (closes[at] - closes[at - 1])) // MINUTE * MINUTE
    plain, jumped = decisions(case, None), decisions(case, jump_ms)
    before = [one for one in plain if one.at_ms <= jump_ms]
    assert len(before) >= at - FIRST_DECIDED
    assert all(one.outcome == "published" and one.levels for one in before)
    assert [one for one in jumped if one.at_ms <= jump_ms] == before
    later = [(one.prompt_hash, other.prompt_hash) for one, other in zip(plain, jumped, strict=True) if one.at_ms > jump_ms]
    assert later
    assert all(one != other for one, other in later), "what is decided after the jump rests on it"
