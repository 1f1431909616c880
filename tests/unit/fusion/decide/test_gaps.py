"""Missing bars: perfect data of any market is never blocked, a sparse instrument's quiet minutes are not, and an hour's hole is."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import exchange_calendars as xc
import numpy as np
import pytest

from schemas import Instrument, MarketFeatures, Outcome
from services.core.calendar import SessionCalendar
from services.fusion.decide.guard import Guard
from services.fusion.state.book import Book
from tests.unit.fusion import build
from tests.unit.fusion.build import MINUTE, bar, instrument
from tests.unit.fusion.desk import Desk

MARKETS = ["XNYS", "XTKS", "XHKG", "XSHG", "XLON", "XBOM", "CMES", "FX", "24x7"]
SETTINGS = build.settings(window_bars=256, epoch_slots=64, min_bars=20).fusion
DAY = 1_440 * MINUTE
FIRST, LAST = dt.date(2024, 3, 1), dt.date(2024, 3, 31)
"""A month in which New York and London change their clocks, and with Good Friday."""
HOUR_BARS = 60


@cache
def minutes(market: str) -> Sequence[int]:
    """When each minute of the month opens that the market trades in, found without our calendars' arithmetic."""
    every = range(_ms(FIRST), _ms(LAST), MINUTE)
    if market == "24x7":
        return every
    if market == "FX":
        return [at_ms for at_ms in every if _fx_trades(at_ms)]
    calendar = xc.get_calendar(market)
    opens: list[int] = calendar.sessions_minutes(str(FIRST), str(LAST)).to_numpy(dtype="datetime64[ms]").astype(np.int64).tolist()
    if market != "CMES":
        return opens
    chicago = ZoneInfo("America/Chicago")
    return [at_ms for at_ms in opens if dt.datetime.fromtimestamp(at_ms / 1000, chicago).hour != 16]


def _ms(day: dt.date) -> int:
    return (day - dt.date(1970, 1, 1)).days * DAY


def _fx_trades(at_ms: int) -> bool:
    at = dt.datetime.fromtimestamp(at_ms / 1000, ZoneInfo("America/New_York"))
    friday, saturday, sunday = 4, 5, 6
    return not (at.weekday() == saturday or (at.weekday() == friday and at.hour >= 17) or (at.weekday() == sunday and at.hour < 17))


def rules_that_block(of: Instrument, opens: Iterable[int]) -> list[str]:
    """Feed a book with a bar of 1m for each opening time, and return the rules that the guard names after each bar."""
    book, guard = Book(of, SETTINGS, SessionCalendar.of(of.calendar)), Guard(SETTINGS)
    named = []
    values: dict[str, Any] = bar(0).model_dump() | {"symbol": of.symbol}
    for count, open_ms in enumerate(opens):
        # Checked bars cost ten times as much, and a month of minutes on nine markets is a quarter of a million.
        one = MarketFeatures.model_construct(**(values | {"ts_open_ms": open_ms, "ts_close_ms": open_ms + MINUTE}))
        book.fold_closed(one)
        if count >= SETTINGS.min_bars and (block := guard.on_book(book, "1m", 0)) is not None:
            named.append(block.rule)
    return named


def traded_on(market: str, *, sparse: bool = False) -> Instrument:
    return instrument(calendar=market).model_copy(update={"sparse": sparse})


def with_holes(opens: Sequence[int], share: float) -> list[int]:
    rng = random.Random(7)  # noqa: S311 - which minutes are missing
    return [at_ms for at_ms in opens if rng.random() >= share]


@pytest.mark.parametrize("market", MARKETS)
def test_a_month_of_perfect_minutes_is_never_blocked(market: str) -> None:
    assert rules_that_block(traded_on(market), minutes(market)) == []


@pytest.mark.parametrize("market", ["XHKG", "CMES", "24x7"])
def test_a_sparse_instrument_of_which_three_minutes_in_ten_are_missing_is_never_blocked(market: str) -> None:
    opens = with_holes(minutes(market), 0.3)
    assert rules_that_block(traded_on(market, sparse=True), opens) == []
    assert set(rules_that_block(traded_on(market), opens)) <= {"max_gap_bars", "max_missing_share"}
    assert len(rules_that_block(traded_on(market), opens)) > len(opens) // 2


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("sparse", [False, True])
def test_an_hours_hole_in_a_session_blocks_for_as_long_as_it_is_in_the_window(market: str, *, sparse: bool) -> None:
    opens = list(minutes(market))[: 4 * 256]
    first = 300
    holed = opens[:first] + opens[first + HOUR_BARS :]
    assert rules_that_block(traded_on(market, sparse=sparse), holed) == ["max_gap_bars"] * SETTINGS.window_bars


def test_bars_beside_the_schedule_leave_no_gaps() -> None:
    """Hours from 10:00 on, as some vendors cut New York's day, and minutes before and after the session."""
    book = Book(traded_on("XNYS"), build.settings(intervals=["1m", "1h"]).fusion, SessionCalendar.of("XNYS"))
    for day in ("2024-07-01", "2024-07-02"):
        for hour in range(14, 20):
            at = dt.datetime.fromisoformat(f"{day}T{hour}:00+00:00")
            assert book.fold_market(build.bar_at(round(at.timestamp() * 1000), interval="1h")).name == "FOLDED"
    assert book.bars["1h"].missing_in(100) <= 1, "the half-hours before and after are one scheduled bar"


def test_a_gap_over_lunch_and_night_counts_the_slots_of_the_sessions_only() -> None:
    book = Book(traded_on("XTKS"), build.settings().fusion, SessionCalendar.of("XTKS"))
    closed = dt.datetime.fromisoformat("2024-07-01T05:59+00:00"), dt.datetime.fromisoformat("2024-07-02T03:31+00:00")
    for at in closed:
        book.fold_market(build.bar_at(round(at.timestamp() * 1000)))
    assert book.bars["1m"].longest_gap_in(16) == 150 + 1


async def test_the_worker_asks_before_and_after_lunch_in_tokyo_and_not_after_an_hours_hole() -> None:
    desk = await Desk.open(start_from="latest")
    tokyo = "7203.XTKS"
    await desk.instruments(instrument(tokyo, calendar="XTKS"))
    lunch, length = 150, 60
    await desk.bars(*(bar(slot, symbol=tokyo) for slot in range(lunch - 5, lunch)))
    async with desk.running():
        for count, slot in enumerate((lunch + length, lunch + length + 1, lunch + 2 * length + 2), start=1):
            await desk.bars(bar(slot, symbol=tokyo))
            await desk.concluded(count)
    outcomes = await desk.outcomes()
    assert [outcome for outcome, _ in outcomes] == [Outcome.PUBLISHED, Outcome.PUBLISHED, Outcome.BLOCKED]
    assert outcomes[-1] == (Outcome.BLOCKED, "max_gap_bars")
