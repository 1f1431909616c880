"""Features of the user's own: published beside the service's, the same after a restart, and never the end of the service."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from services.core.folding.bar_fold import Fold
from services.core.settings import SettingsError
from services.market.aggregate import Ohlcv
from services.market.own_features import LOOKBACK_BARS, BarArrays, checked, load_features
from services.market.series import KEPT_BARS, Series
from services.strategy.folder import FEATURES, TEMPLATE

MINUTE = 60_000


def ohlcv(slot: int, close: float, revision: int = 0) -> Ohlcv:
    return Ohlcv(slot * MINUTE, (slot + 1) * MINUTE, close, close + 1, close - 1, close, 10.0 + slot, revision)


def bar_mean(bars: BarArrays) -> Mapping[str, float]:
    return {"mean_close": float(np.mean(bars.close)), "seen": float(len(bars.close))}


def price(slot: int) -> float:
    return 100 + slot % 7


def folded(count: int, first: int = 0) -> tuple[Series, dict[str, float]]:
    series = Series(own=bar_mean)
    features: dict[str, float] = {}
    for slot in range(first, count):
        features = series.fold(ohlcv(slot, price(slot)), slot).features or {}
    return series, features


def test_the_function_of_a_new_strategy_is_called_for_every_bar() -> None:
    series = Series(own=load_features(TEMPLATE / FEATURES))
    made = [series.fold(ohlcv(slot, 100.0 + slot), slot).features or {} for slot in range(13)]
    assert [("mom_12" in one) for one in made] == [False] * 12 + [True]
    assert made[-1]["mom_12"] == 0.12
    forming = series.form(ohlcv(13, 202.0)).features
    assert forming is not None
    assert forming["mom_12"] == 1.0


def test_features_after_a_restart_are_those_of_an_unbroken_run() -> None:
    whole, unbroken = folded(KEPT_BARS + 200)
    needed = whole.needed_from()
    assert needed is not None
    _, restarted = folded(KEPT_BARS + 200, needed)
    assert unbroken["seen"] == LOOKBACK_BARS
    assert {name: unbroken[name] for name in ("mean_close", "seen")} == {name: restarted[name] for name in ("mean_close", "seen")}


def test_a_corrected_bar_has_its_features_computed_again_and_so_has_the_newest() -> None:
    series, _ = folded(30)
    revised = series.fold(ohlcv(20, 500.0, revision=1), 99)
    assert revised.fold is Fold.REVISED
    closes = [price(slot) for slot in range(20)] + [500.0] + [price(slot) for slot in range(21, 30)]
    assert revised.features is not None
    assert revised.newest is not None
    assert revised.features["mean_close"] == pytest.approx(np.mean(closes[:21]))
    assert revised.newest[1]["mean_close"] == pytest.approx(np.mean(closes))


@pytest.mark.parametrize(
    "made",
    [{"Bad Name": 1.0}, {"atr": 1.0}, {f"f_{number}": 1.0 for number in range(60)}, {"x": "much"}, None],
)
def test_what_no_message_may_carry_is_left_out(made: object) -> None:
    function = checked(lambda _: made, "own.py")  # type: ignore[arg-type, return-value]
    series = Series(own=function)
    features = series.fold(ohlcv(0, 100.0), 0).features
    assert features == Series().fold(ohlcv(0, 100.0), 0).features


def test_a_function_that_raises_and_a_value_that_is_no_number_stop_nothing() -> None:
    def broken(bars: BarArrays) -> Mapping[str, float]:
        return {"inverse": float(bars.close[5]), "nan": float("nan"), "two": 2.0}

    series = Series(own=checked(broken, "own.py"))
    made = [series.fold(ohlcv(slot, 100.0), slot).features or {} for slot in range(6)]
    assert [("two" in one, "nan" in one) for one in made] == [(False, False)] * 5 + [(True, False)]


def test_a_function_that_never_returns_or_ends_the_process_stops_nothing() -> None:
    def endless(bars: BarArrays) -> Mapping[str, float]:
        while len(bars.close):
            pass
        return {}

    def ends(bars: BarArrays) -> Mapping[str, float]:
        sys.exit(len(bars.close))

    for function in (endless, ends):
        assert "body" in (Series(own=checked(function, "own.py")).fold(ohlcv(0, 100.0), 0).features or {})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        (None, "not a Python file"),
        ("x = 1", "no function features"),
        ("1/0", "ZeroDivisionError"),
    ],
)
def test_a_file_without_the_function_is_refused_by_name(tmp_path: Path, text: str | None, told: str) -> None:
    file = tmp_path / "features.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError, match=told) as caught:
        load_features(file)
    assert str(file) in str(caught.value)
