"""The example producer publishes what the contract says, once a bar, and the same again after a restart."""

from __future__ import annotations

import itertools
import math

from features_producer import BARS, FeatureBook
from hypothesis import given
from hypothesis import strategies as st

from schemas import MarketFeatures
from tests.unit.backtest.build import SYMBOLS, candle, walk

CANDLES = walk(200, symbols=SYMBOLS[:1])


def published(book: FeatureBook, values: list[bytes]) -> list[MarketFeatures]:
    return [MarketFeatures.decode(message) for value in values if (message := book.take(value)) is not None]


def test_every_closed_candle_becomes_one_record_of_the_contract() -> None:
    forming = candle(SYMBOLS[0], 500, 100.0).model_copy(update={"closed": False})
    made = published(FeatureBook(), [one.encode() for one in (*CANDLES, CANDLES[-1], CANDLES[3], forming)])
    assert [(one.ts_close_ms, one.close, one.volume) for one in made] == [(one.ts_close_ms, one.close, one.volume) for one in CANDLES]
    assert made[0].features == {}
    assert set(made[-1].features) == {"atr", "from_high"}


def test_its_true_range_is_the_mean_over_fourteen_bars() -> None:
    bars = [candle(SYMBOLS[0], slot, 100.0 + slot, 100.0 + slot) for slot in range(15)]
    last = published(FeatureBook(), [one.encode() for one in bars])[-1]
    ranges = [max(bar.high, before.close) - min(bar.low, before.close) for before, bar in itertools.pairwise(bars)]
    assert math.isclose(last.features["atr"], sum(ranges) / 14, rel_tol=1e-7)


@given(st.integers(0, len(CANDLES) - 1))
def test_a_book_that_read_enough_bars_again_computes_the_same(first: int) -> None:
    values = [one.encode() for one in CANDLES]
    whole, again = published(FeatureBook(), values), published(FeatureBook(), values[first:])
    assert again[BARS - 1 :] == whole[first + BARS - 1 :]
