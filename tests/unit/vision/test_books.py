"""A partition's records: whatever they hold, each has exactly one outcome, and nothing raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from schemas import Instrument, InstrumentEvent, RunMode
from services.core.bus import Record
from services.core.folding.candles import CandleRules
from services.core.folding.disposition import Disposition
from services.vision.book import Refusal, Window, WindowRules
from services.vision.books import Books, WindowsDue
from services.vision.render import ChartSpec, render
from tests.unit.vision.build import START, SYMBOL, candle, instrument, split

SPEC = ChartSpec(5)


class Reference:
    """One instrument, and splits that a test adds."""

    def __init__(self, splits: Sequence[InstrumentEvent] = ()) -> None:
        self._splits = splits

    def get(self, symbol: str) -> Instrument | None:
        return instrument() if symbol == SYMBOL else None

    def restatements(self, symbol: str) -> Sequence[InstrumentEvent]:
        assert symbol == SYMBOL
        return self._splits


def books(splits: Sequence[InstrumentEvent] = ()) -> Books:
    rules = CandleRules((RunMode.DEMO,), max_bytes=10_000, max_skew_ms=0)
    return Books(Reference(splits), rules, WindowsDue(frozenset({"1m"}), 1, WindowRules(SPEC, max_gap_bars=5, max_jump=1e9)))


def record(value: bytes | None, offset: int = 0, key: bytes | None = SYMBOL.encode()) -> Record:
    return Record("demo.candles", 0, offset, START * 2, key, value)


FIELDS = orjson.loads(candle(0).encode())
json_values: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8) | st.just([])
)


@given(st.lists(st.binary(max_size=60) | st.dictionaries(st.sampled_from(list(FIELDS)), json_values, max_size=4), max_size=8))
def test_no_bytes_make_it_raise(values: list[bytes | dict[str, Any]]) -> None:
    one = books()
    for offset, value in enumerate(values):
        result = one.take(record(value if isinstance(value, bytes) else orjson.dumps(FIELDS | value), offset))
        assert (result.refused is not None) == (result.disposition is Disposition.DEAD_LETTERED)
        assert result.due is None or result.disposition is Disposition.FOLDED


prices = st.sampled_from([1e-9, 0.01, 1.0, 99.5, 1e11])


@given(
    st.lists(st.tuples(st.integers(0, 30), prices, prices, st.sampled_from([0.0, 1.0, 9e17]), st.integers(0, 2)), max_size=25),
    st.floats(1e-3, 1e4),
)
def test_every_window_that_is_due_renders(drawn: list[tuple[int, float, float, float, int]], ratio: float) -> None:
    """Gaps, repeats, corrections, absurd prices, empty ranges, a split of any ratio: drawn or refused by name."""
    one = books([split(START + 600_000, ratio)])
    for offset, (slot, first, second, volume, revision) in enumerate(drawn):
        bar = candle(slot, revision=revision, volume=volume).model_copy(
            update={"open": first, "close": second, "high": max(first, second), "low": min(first, second)}
        )
        result = one.take(record(bar.encode(), offset))
        if result.due is not None and isinstance(result.due.window, Window):
            assert render(SPEC, result.due.window.bars[None]).any()
        elif result.due is not None:
            assert isinstance(result.due.window, Refusal)
