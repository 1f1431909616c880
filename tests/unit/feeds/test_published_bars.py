"""Whatever a feed offers, and however often it starts anew, the topic gets each closed bar once, in order."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from schemas import Candle
from services.feeds.published_bars import BarStatus, PublishedBars
from tests.unit.market.build import MINUTE, MODE, MONDAY, SYMBOL


def bar(slot: int, volume: int, *, closed: bool) -> Candle:
    return Candle(
        schema_version=1,
        run_mode=MODE,
        symbol=SYMBOL,
        interval="1m",
        ts_open_ms=MONDAY + slot * MINUTE,
        ts_close_ms=MONDAY + (slot + 1) * MINUTE,
        open=1.0,
        high=1.0,
        low=1.0,
        close=1.0,
        volume=float(volume),
        closed=closed,
    )


OFFERS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2), st.booleans(), st.booleans()), max_size=60)


@given(OFFERS)
def test_closed_bars_come_once_and_in_order_and_corrections_rise(offers: list[tuple[int, int, bool, bool]]) -> None:
    topic: list[Candle] = []
    published = PublishedBars()
    for slot, volume, closed, again in offers:
        if again:
            published = PublishedBars()
            for held in topic:
                published.record(held)
        news, made = published.classify(bar(slot, volume, closed=closed))
        if news not in {BarStatus.KNOWN, BarStatus.LATE}:
            topic.append(made)
    first = [one.ts_open_ms for one in topic if one.closed and one.revision == 0]
    assert first == sorted(set(first))
    for open_ms in first:
        versions = [one for one in topic if one.closed and one.ts_open_ms == open_ms]
        assert [one.revision for one in versions] == list(range(len(versions)))
        assert all(before.volume != after.volume for before, after in pairwise(versions))
    last_ms = 0
    for one in topic:
        assert one.closed or one.ts_close_ms > last_ms, "no bar forms once it has closed"
        last_ms = max(last_ms, one.ts_close_ms) if one.closed else last_ms


@given(st.lists(st.integers(0, 30), unique=True, min_size=1))
def test_offered_again_as_a_whole_nothing_is_news(slots: list[int]) -> None:
    published = PublishedBars()
    bars = [bar(slot, 1, closed=True) for slot in sorted(slots)]
    assert [published.classify(one)[0] for one in bars] == [BarStatus.CLOSED] * len(bars)
    assert [published.classify(one)[0] for one in bars] == [BarStatus.KNOWN] * len(bars)
    assert published.last_open_ms(SYMBOL, "1m") == bars[-1].ts_open_ms
