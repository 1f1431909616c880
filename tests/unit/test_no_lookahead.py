"""Nothing is known before it happened: a jump planted at one instant changes no feature, chart or prompt from before it.

One price path makes the bars of every interval, as an exchange would, each known at its end. They go the whole way, through the market
service's books, the charts and the worker's books to the prompt, once as they are and once with the jump.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas import Candle, MarketFeatures, VisionFeatures, interval_ms
from services.core.bus import Record
from services.core.calendar import SessionCalendar
from services.market.book import Book as MarketBook
from services.vision.book import ChartBook, Window, WindowRules
from services.vision.features import compute_features
from services.vision.render import ChartSpec
from tests.unit.fusion import build
from tests.unit.fusion.build import MARKET, MINUTE, MODE, VISION, instrument
from tests.unit.fusion.log import Folder
from tests.unit.vision.build import MeanForecaster

MARKETS = ["XNYS", "XTKS", "XHKG", "XSHG", "XLON", "XBOM", "CMES", "FX", "24x7"]
SYMBOL = "ACME.TEST"
SPEC = ChartSpec(5)
BARS = 60
START_MS = round(dt.datetime(2024, 3, 6, 12, tzinfo=dt.UTC).timestamp() * 1000)
"""Summer time begins in New York after three days, and in London after three weeks."""


class Feed(NamedTuple):
    """What comes as candles, and what is built of the fastest of them."""

    given: tuple[str, ...]
    built: tuple[str, ...]


FEEDS = [Feed(("1m", "1d"), ("5m", "30m")), Feed(("15m", "1d"), ("1h", "4h")), Feed(("1h", "1w"), ("4h", "1d")), Feed(("1d",), ("1w",))]


class Path:
    """A price for each minute, the same whenever it is asked for, multiplied from the jump on."""

    def __init__(self, first_ms: int, last_ms: int, jump_ms: int | None) -> None:
        minutes = np.arange(first_ms, last_ms, MINUTE)
        steps = np.random.default_rng(7).normal(0, 0.0004, len(minutes))
        self.first_ms = first_ms
        self.prices: NDArray[np.float64] = 100 * np.exp(np.cumsum(steps))
        if jump_ms is not None:
            self.prices[minutes >= jump_ms] *= 1.3

    def candle(self, calendar: SessionCalendar, interval: str, close_ms: int) -> Candle:
        bounds = calendar.bar_bounds(interval, close_ms - 1)
        assert bounds is not None
        assert bounds[1] == close_ms
        begin = max(0, bounds[0] - self.first_ms) // MINUTE
        prices = self.prices[begin : (close_ms - self.first_ms) // MINUTE]
        return Candle(
            schema_version=1,
            run_mode=MODE,
            symbol=SYMBOL,
            interval=interval,
            ts_open_ms=bounds[0],
            ts_close_ms=close_ms,
            open=prices[0],
            high=prices.max(),
            low=prices.min(),
            close=prices[-1],
            volume=1000.0 * prices[-1],
            closed=True,
        )


def candles(calendar: SessionCalendar, feed: Feed, jump_ms: int | None, beyond: int = 0) -> list[Candle]:
    """Return the bars of the intervals that come as candles, in the order in which they are known.

    Of slower intervals there are so many more `beyond` the last bar of the fastest: a file has them, and a bar that is read as closed too
    early would show them.
    """
    until_ms = base_closes(calendar, feed)[-1]
    counts = {one: calendar.slots_between(one, START_MS, until_ms) + (beyond if one != feed.given[0] else 0) for one in feed.given}
    closes = [(close_ms, one) for one, count in counts.items() for close_ms in calendar.next_closes(one, START_MS, count)]
    path = Path(START_MS - 8 * 86_400_000, max(closes)[0], jump_ms)
    return [path.candle(calendar, interval, at_ms) for at_ms, interval in sorted(closes, key=lambda one: (one[0], interval_ms(one[1])))]


def base_closes(calendar: SessionCalendar, feed: Feed) -> list[int]:
    return calendar.next_closes(feed.given[0], START_MS, BARS)


class Seen(NamedTuple):
    """Something that was computed, and when it was."""

    known_ms: int
    what: object


async def observe(calendar: SessionCalendar, feed: Feed, jump_ms: int | None, prompts_at: Sequence[int]) -> list[Seen]:
    """Play the bars; return features and chart features as they come, and the prompts of these instants."""
    of = instrument(SYMBOL, calendar=calendar.name)
    fast = feed.given[0]
    market = MarketBook(of, (), {fast: list(feed.built)})
    charts = ChartBook(of, fast, WindowRules(SPEC, max_gap_bars=0, max_jump=9.0))
    names = sorted({*feed.given, *feed.built}, key=interval_ms)
    folder = Folder(build.settings(intervals=names, trigger_intervals=[fast], max_jump=9.0), instruments=[of])
    offsets = iter(range(1_000_000))
    seen: list[Seen] = []
    for one in candles(calendar, feed, jump_ms):
        known_ms = one.ts_close_ms
        for message in messages(market, charts, one):
            topic = MARKET if isinstance(message, MarketFeatures) else VISION
            seen.append(Seen(known_ms, message))
            folder.feed([Record(topic, 0, next(offsets), known_ms, SYMBOL.encode(), message.encode())])
        if one.interval == fast and known_ms in prompts_at:
            seen.append(Seen(known_ms, (await folder.prompt(SYMBOL, fast)).hash))
    return seen


def messages(market: MarketBook, charts: ChartBook, one: Candle) -> Iterator[MarketFeatures | VisionFeatures]:
    for bar in market.take(one, 0).out:
        assert bar.ts_open_ms < one.ts_close_ms
        assert not bar.closed or bar.ts_close_ms <= one.ts_close_ms, "a bar that is closed has ended"
        yield bar
    if charts_drawn := one.interval == charts._interval:
        charts.take(one, 0)
    if charts_drawn and isinstance(window := charts.window(()), Window):
        assert window.window_end_ms <= one.ts_close_ms
        yield from compute_features([window], MeanForecaster(SPEC))


@pytest.mark.parametrize("market", MARKETS)
@settings(max_examples=8, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(feed=st.sampled_from(FEEDS), at=st.integers(12, BARS - 2), inside=st.floats(0, 0.99))
def test_a_jump_changes_nothing_that_was_known_before_it(market: str, feed: Feed, at: int, inside: float) -> None:
    calendar = SessionCalendar.of(market)
    closes = base_closes(calendar, feed)
    jump_ms = closes[at - 1] + round(inside * (closes[at] - closes[at - 1])) // MINUTE * MINUTE
    prompts_at = closes[at - 3 : at + 1]
    plain = asyncio.run(observe(calendar, feed, None, prompts_at))
    jumped = asyncio.run(observe(calendar, feed, jump_ms, prompts_at))
    assert [one for one in jumped if one.known_ms <= jump_ms] == [one for one in plain if one.known_ms <= jump_ms]
    later = [(one.what, other.what) for one, other in zip(plain, jumped, strict=True) if one.known_ms > jump_ms]
    # A chart that begins after the jump has a scale of its own, and is the same.
    shown = [one != other for one, other in later if not isinstance(one, VisionFeatures)]
    assert shown
    assert all(shown), "what is known after the jump shows it"
