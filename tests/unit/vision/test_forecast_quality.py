"""The figures of the model card against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vision import logistic
from services.vision.dataset import Series, build_samples, split_by_time
from services.vision.forecast_quality import accuracy, auc, block_bootstrap, calibration, log_loss
from services.vision.render import ChartSpec
from tests.unit.vision.build import walk

cases = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40)


@given(cases)
def test_auc_is_the_share_of_pairs_in_order(drawn: list[tuple[int, bool]]) -> None:
    p_up = np.array([score / 5 for score, _ in drawn])
    up = np.array([label for _, label in drawn])
    pairs = [(a > b) + (a == b) / 2 for a in p_up[up] for b in p_up[~up]]
    assert auc(p_up, up) == pytest.approx(float(np.mean(pairs)) if pairs else 0.5)


def test_a_coin_loses_ln_two() -> None:
    up = np.array([True, False])
    assert log_loss(np.array([0.5, 0.5]), up) == pytest.approx(np.log(2))
    assert accuracy(np.array([0.5, 0.5]), up) == 0.5


def test_bootstrap_of_dependent_windows_is_wider_than_that_of_single_days() -> None:
    """Twenty days in a row go the same way: blocks of days see how little that says, single days do not."""
    up = np.repeat(np.random.default_rng(1).random(50) < 0.5, 20)
    p_up = np.full(len(up), 0.6)
    days = np.arange(len(up), dtype=np.int64)
    narrow = block_bootstrap(accuracy, p_up, up, days, block_days=1, draws=200, seed=1)
    wide = block_bootstrap(accuracy, p_up, up, days, block_days=40, draws=200, seed=1)
    assert wide.value == narrow.value == accuracy(p_up, up)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_bootstrap_draws_all_windows_of_a_day_together_and_is_seeded() -> None:
    up = np.array([True, False] * 30)
    p_up = np.where(up, 0.7, 0.3)
    days = np.repeat(np.arange(30, dtype=np.int64), 2)
    first = block_bootstrap(auc, p_up, up, days, block_days=5, draws=50, seed=3)
    assert (first.low, first.value, first.high) == (1.0, 1.0, 1.0)
    assert first == block_bootstrap(auc, p_up, up, days, block_days=5, draws=50, seed=3)


def test_calibration_bins_hold_every_window_once_in_order() -> None:
    p_up = np.random.default_rng(2).random(103)
    bins = calibration(p_up, p_up > 0.5)
    assert sum(one.count for one in bins) == 103
    assert [one.p_up for one in bins] == sorted(one.p_up for one in bins)


def test_platt_scaling_mends_logits_that_are_too_sure() -> None:
    generator = np.random.default_rng(3)
    true = generator.normal(0, 1, 20_000)
    up = generator.random(20_000) < logistic.sigmoid(true)
    scale, shift = logistic.calibrate(4 * true + 1, up)
    assert scale == pytest.approx(0.25, abs=0.02)
    assert shift == pytest.approx(-0.25, abs=0.05)


def test_platt_scaling_of_logits_that_point_the_wrong_way_keeps_the_share_of_ups() -> None:
    up = np.array([True] * 30 + [False] * 10)
    scale, shift = logistic.calibrate(np.where(up, -1.0, 1.0) + np.tile([0.5, -0.5, 2.0, -2.0], 10), up)
    assert scale == 0.0
    assert logistic.sigmoid(np.array([shift]))[0] == pytest.approx(0.75)


def test_logistic_regression_finds_what_is_there() -> None:
    """Closes that keep a trend for ever are told apart by any of the window's numbers."""
    spec = ChartSpec(5)
    times = np.arange(400, dtype=np.int64)
    rising, falling = (np.abs(walk(400, seed)) for seed in (1, 2))
    rising[:, :4] = 100 * 1.01 ** times[:, None]
    falling[:, :4] = 100 * 0.99 ** times[:, None]
    samples = build_samples([Series("UP", times, rising), Series("DOWN", times, falling)], spec, 3)
    parts = split_by_time(samples, validation_from_ms=200, test_from_ms=300)
    model = logistic.fit(parts.train, parts.validation)
    assert auc(model.p_up(logistic.features(parts.test)), parts.test.up) == 1.0
