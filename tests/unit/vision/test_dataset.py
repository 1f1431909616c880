"""Windows and their parts: what is learned from knows nothing of what it is judged by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vision.dataset import PriceSplit, Series, build_samples, split_by_time
from services.vision.render import CLOSE, VOLUME, ChartSpec
from tests.unit.vision.build import walk

SPEC = ChartSpec(5)
HORIZON = 3


def series(count: int = 200, *, seed: int = 1, symbol: str = "A", step: int = 10, offset: int = 0) -> Series:
    return Series(symbol, np.arange(count, dtype=np.int64) * step + offset, walk(count, seed))


def test_windows_carry_their_label_and_times() -> None:
    one = series(30)
    samples = build_samples([one], SPEC, HORIZON)
    assert len(samples) == 30 - 9 - HORIZON + 1
    for row in range(len(samples)):
        last = row + 8
        assert (samples.bars[row] == one.bars[last - 8 : last + 1]).all()
        assert samples.up[row] == (one.bars[last + HORIZON, CLOSE] > one.bars[last, CLOSE])
        assert samples.start_ms[row] == one.ts_close_ms[last - 8]
        assert samples.end_ms[row] == one.ts_close_ms[last]
        assert samples.label_end_ms[row] == one.ts_close_ms[last + HORIZON]


@given(st.integers(300, 1_000), st.integers(1_010, 1_600), st.integers(0, 9))
def test_no_part_reaches_into_the_next(validation_from: int, test_from: int, offset: int) -> None:
    samples = build_samples([series(), series(150, seed=2, symbol="B", offset=offset)], SPEC, HORIZON)
    parts = (
        split_by_time(samples, validation_from_ms=validation_from, test_from_ms=test_from) if test_from - validation_from > 150 else None
    )
    if parts is None:
        return
    assert parts.train.label_end_ms.max() < validation_from
    assert parts.validation.start_ms.min() >= validation_from
    assert parts.validation.label_end_ms.max() < test_from
    assert parts.test.start_ms.min() >= test_from
    assert len(parts.train) + len(parts.validation) + len(parts.test) < len(samples), "crossing windows are in no part"


def test_changing_all_that_comes_after_a_boundary_changes_nothing_before_it() -> None:
    """The sharpest form of no leakage: rewrite the future, and the train part, labels and images included, stays the same."""
    one = series()
    boundary, test_from = 1_000, 1_500
    rewritten = Series(one.symbol, one.ts_close_ms, np.where((one.ts_close_ms >= boundary)[:, None], walk(200, 9), one.bars))
    before = split_by_time(build_samples([one], SPEC, HORIZON), validation_from_ms=boundary, test_from_ms=test_from)
    after = split_by_time(build_samples([rewritten], SPEC, HORIZON), validation_from_ms=boundary, test_from_ms=test_from)
    assert (before.train.up == after.train.up).all()
    assert (before.train.images() == after.train.images()).all()
    assert (before.validation.up != after.validation.up).any()


def test_splits_leave_no_trace_in_adjusted_bars() -> None:
    true = walk(50)
    traded = true.copy()
    traded[:20, :VOLUME] *= 2
    traded[:20, VOLUME] /= 2
    one = Series("A", np.arange(50, dtype=np.int64), traded, (PriceSplit(20, 2.0),))
    assert one.adjusted() == pytest.approx(true)


def test_two_splits_multiply() -> None:
    bars = np.full((3, 5), 12.0)
    one = Series("A", np.arange(3, dtype=np.int64), bars, (PriceSplit(1, 2.0), PriceSplit(2, 3.0)))
    assert one.adjusted()[:, CLOSE].tolist() == [2.0, 4.0, 12.0]


def test_boundaries_that_empty_a_part_are_refused() -> None:
    samples = build_samples([series()], SPEC, HORIZON)
    with pytest.raises(ValueError, match="'test' holds no window"):
        split_by_time(samples, validation_from_ms=500, test_from_ms=1_990)
    with pytest.raises(ValueError, match="before the test's start"):
        split_by_time(samples, validation_from_ms=900, test_from_ms=900)


def test_series_too_short_for_one_window_are_refused() -> None:
    with pytest.raises(ValueError, match="the 12 bars that one window and its label take"):
        build_samples([series(11)], SPEC, HORIZON)


def test_series_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="must increase"):
        Series("A", np.array([2, 1], dtype=np.int64), walk(2))
