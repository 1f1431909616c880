"""Indicators: the same as a plain computation over the whole series, finite whatever comes, undisturbed by forming bars."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import fmean, pstdev

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas import MAX_FEATURES, RunMode
from services.feeds.samples import load_stocks
from services.market.indicators import WARM_UP_BARS, Bar, Indicators

NAMES = {
    "ret_1", "ret_5", "atr", "rsi", "ema_fast", "ema_slow", "macd", "macd_signal", "macd_hist",
    "bb_pos", "bb_width", "volume_z", "body", "upper_wick", "lower_wick",
}  # fmt: skip


@st.composite
def bars(draw: st.DrawFn, *, price: st.SearchStrategy[float], volume: st.SearchStrategy[float]) -> Bar:
    low, first, last, high = sorted(draw(st.lists(price, min_size=4, max_size=4)))
    if draw(st.booleans()):
        first, last = last, first
    return Bar(first, high, low, last, draw(volume))


SANE = bars(price=st.floats(1, 1_000), volume=st.floats(0, 1e9))
ANY = bars(
    price=st.floats(0, 1e12, exclude_min=True, exclude_max=True),
    volume=st.one_of(st.just(0.0), st.floats(0, 1e18, exclude_max=True)),
)


def ema(values: list[float], period: int) -> list[float | None]:
    out: list[float | None] = [None] * (period - 1)
    for index in range(period - 1, len(values)):
        before = out[-1] if out else None
        seed = fmean(values[:period])
        out.append(seed if before is None else before + 2 / (period + 1) * (values[index] - before))
    return out[: len(values)]


def reference(series: list[Bar]) -> dict[str, float]:
    """Return the features of the last bar, computed over the whole series at once."""
    closes = [bar.close for bar in series]
    return {**returns(closes), **wilder(series), **exponential(closes), **spreads(series), **shape(series[-1])}


def returns(closes: list[float]) -> dict[str, float]:
    return {f"ret_{back}": closes[-1] / closes[-1 - back] - 1 for back in (1, 5) if len(closes) > back}


def wilder(series: list[Bar]) -> dict[str, float]:
    closes = [bar.close for bar in series]
    out: dict[str, float] = {}
    spans = [max(bar.high, before) - min(bar.low, before) for before, bar in zip([series[0].low, *closes], series, strict=False)]
    if len(spans) >= 14:
        out["atr"] = fmean(spans[:14])
        for span in spans[14:]:
            out["atr"] += (span - out["atr"]) / 14
    moves = [after - before for before, after in pairwise(closes)]
    if len(moves) >= 14:
        gain = sum(max(move, 0) for move in moves[:13]) / 13
        loss = sum(max(-move, 0) for move in moves[:13]) / 13
        for move in moves[13:]:
            gain += (max(move, 0) - gain) / 14
            loss += (max(-move, 0) - loss) / 14
        if gain + loss > 0:
            out["rsi"] = 100 * gain / (gain + loss)
    return out


def exponential(closes: list[float]) -> dict[str, float]:
    fast, slow = ema(closes, 12), ema(closes, 26)
    lines = [quick - steady for quick, steady in zip(fast, slow, strict=True) if quick is not None and steady is not None]
    signal = ema(lines, 9)[-1] if lines else None
    found = {
        "ema_fast": fast[-1],
        "ema_slow": slow[-1],
        "macd": lines[-1] if lines else None,
        "macd_signal": signal,
        "macd_hist": None if signal is None else lines[-1] - signal,
    }
    return {name: value for name, value in found.items() if value is not None}


def spreads(series: list[Bar]) -> dict[str, float]:
    if len(series) < 20:
        return {}
    closes, volumes = [bar.close for bar in series[-20:]], [bar.volume for bar in series[-21:-1]]
    middle, deviation = fmean(closes), pstdev(closes)
    out = {"bb_width": 4 * deviation / middle}
    if deviation > 1e-9 * middle:
        out["bb_pos"] = (closes[-1] - middle + 2 * deviation) / (4 * deviation)
    if len(volumes) == 20 and pstdev(volumes) > 1e-9 * fmean(volumes):
        out["volume_z"] = (series[-1].volume - fmean(volumes)) / pstdev(volumes)
    return out


def shape(bar: Bar) -> dict[str, float]:
    span = bar.high - bar.low
    if not span:
        return {}
    parts = {
        "body": bar.close - bar.open,
        "upper_wick": bar.high - max(bar.open, bar.close),
        "lower_wick": min(bar.open, bar.close) - bar.low,
    }
    return {name: part / span for name, part in parts.items()}


def assert_same(found: dict[str, float], expected: dict[str, float], scale: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # Differences of close prices lose digits to cancellation: 1e-9 of the price is what is left of them.
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-9 * scale), name


@settings(max_examples=60, deadline=None)
@given(st.lists(SANE, min_size=1, max_size=60))
def test_each_bar_gives_what_a_computation_over_the_whole_series_gives(series: list[Bar]) -> None:
    indicators = Indicators()
    for count, bar in enumerate(series, 1):
        assert_same(indicators.add(bar), reference(series[:count]), 1_000)


def test_letting_history_go_changes_nothing_over_thousands_of_real_bars() -> None:
    series = [Bar(c.open, c.high, c.low, c.close, c.volume) for c in load_stocks(RunMode.DEMO)["IBM.XNYS"]]
    indicators = Indicators()
    for count, bar in enumerate(series, 1):
        features = indicators.add(bar)
        if count % 97 == 0 or count < 40:
            assert_same(features, reference(series[:count]), 1_000)
    held = [len(indicators._closes), len(indicators._macd.input_values), len(indicators._rsi.avg_gain), len(indicators._atr.tr)]
    assert max(held) < 200


@settings(max_examples=100, deadline=None)
@given(st.lists(ANY, min_size=1, max_size=50))
def test_features_are_finite_whatever_the_bars(series: list[Bar]) -> None:
    indicators = Indicators()
    for bar in series:
        for features in (indicators.peek(bar), indicators.add(bar)):
            assert all(math.isfinite(value) for value in features.values())
            assert features.keys() <= NAMES


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SANE, st.lists(SANE, max_size=3)), min_size=1, max_size=40))
def test_looking_at_forming_bars_changes_nothing(series: list[tuple[Bar, list[Bar]]]) -> None:
    watched, alone = Indicators(), Indicators()
    for bar, forming in series:
        for glimpse in forming:
            first = watched.peek(glimpse)
            assert first == watched.peek(glimpse)
        assert watched.peek(bar) == watched.add(bar) == alone.add(bar)
    assert len(watched._rsi.avg_gain) == len(alone._rsi.avg_gain)


def test_a_first_bar_has_its_shape_only() -> None:
    assert Indicators().add(Bar(10, 14, 6, 12, 5)) == {"body": 0.25, "upper_wick": 0.25, "lower_wick": 0.5}


def test_equal_bars_without_range_or_volume_leave_out_what_has_no_meaning() -> None:
    indicators = Indicators()
    features: dict[str, float] = {}
    for _ in range(60):
        features = indicators.add(Bar(0.1, 0.1, 0.1, 0.1, 0.0))
    assert features.keys() == NAMES - {"rsi", "bb_pos", "volume_z", "body", "upper_wick", "lower_wick"}
    assert features["atr"] == features["bb_width"] == features["ret_1"] == 0


def test_a_rebuild_from_the_warm_up_agrees_with_an_unbroken_run() -> None:
    series = [Bar(c.open, c.high, c.low, c.close, c.volume) for c in load_stocks(RunMode.DEMO)["IBM.XNYS"]][:1_500]
    unbroken, rebuilt = Indicators(), Indicators()
    expected = [unbroken.add(bar) for bar in series][-1]
    found = [rebuilt.add(bar) for bar in series[-WARM_UP_BARS:]][-1]
    assert_same(found, expected, 1)


def test_a_spike_in_volume_is_measured_by_the_bars_before_it() -> None:
    indicators = Indicators()
    for number in range(30):
        indicators.add(Bar(10, 11, 9, 10, 100 + number % 2))
    spike = Bar(10, 11, 9, 10, 100_000)
    assert indicators.peek(spike)["volume_z"] == indicators.add(spike)["volume_z"] == pytest.approx((100_000 - 100.5) / 0.5)


@pytest.mark.parametrize("symbol", ["AAPL.XNAS", "IBM.XNYS"])
def test_every_indicator_agrees_with_ta_lib_on_real_bars(symbol: str) -> None:
    """TA-Lib seeds the averages of ATR and MACD a bar or more later, which is forgotten after the warm-up."""
    bars = load_stocks(RunMode.DEMO)[symbol][:1_200]
    opens, highs, lows, closes, volumes = np.array([[c.open, c.high, c.low, c.close, c.volume] for c in bars]).T
    upper, middle, lower = talib.BBANDS(closes, 20, 2, 2)
    macd, macd_signal, macd_hist = talib.MACD(closes, 12, 26, 9)
    spans = np.where(highs > lows, highs - lows, np.nan)
    with np.errstate(invalid="ignore"):
        expected = {
            "ret_1": talib.ROCP(closes, 1),
            "ret_5": talib.ROCP(closes, 5),
            "atr": talib.ATR(highs, lows, closes, 14),
            "rsi": talib.RSI(closes, 14),
            "ema_fast": talib.EMA(closes, 12),
            "ema_slow": talib.EMA(closes, 26),
            "macd": macd,
            "macd_signal": macd_signal,
            "macd_hist": macd_hist,
            "bb_pos": (closes - lower) / (upper - lower),
            "bb_width": (upper - lower) / middle,
            "volume_z": (volumes - _before(talib.SMA(volumes, 20))) / _before(talib.STDDEV(volumes, 20, 1)),
            "body": (closes - opens) / spans,
            "upper_wick": (highs - np.maximum(opens, closes)) / spans,
            "lower_wick": (np.minimum(opens, closes) - lows) / spans,
        }
    assert expected.keys() == NAMES
    indicators = Indicators()
    exact = NAMES - {"atr", "macd", "macd_signal", "macd_hist"}
    for number, bar in enumerate(bars):
        features = indicators.add(Bar(bar.open, bar.high, bar.low, bar.close, bar.volume))
        settled = NAMES if number >= WARM_UP_BARS else exact
        for name in settled:
            value = float(expected[name][number])
            assert (name in features) == math.isfinite(value), (name, number)
            if name in features:
                # TA-Lib's standard deviation loses digits to cancellation.
                assert features[name] == pytest.approx(value, rel=1e-6, abs=1e-6), (name, number)


def _before(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[np.nan], values[:-1]])


def test_all_names_are_there_after_enough_bars_and_fit_the_contract() -> None:
    series = load_stocks(RunMode.DEMO)["FB.XNAS"]
    indicators = Indicators()
    found = [indicators.add(Bar(c.open, c.high, c.low, c.close, c.volume)).keys() for c in series]
    assert found[-1] == NAMES
    assert len(NAMES) <= MAX_FEATURES
