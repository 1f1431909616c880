"""Chart patterns: each rule by an example that meets it and near ones that do not, and what holds for every window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from schemas.vision import MAX_PATTERNS
from services.vision.patterns import detect
from services.vision.render import VOLUME, Floats
from tests.unit.vision.build import bars, flat, walk, windows

Row = tuple[float, float, float, float]
PLAIN: Row = (100.0, 101.0, 99.0, 100.5)
"""A bar of two units of price, no pattern."""


def found(window: Floats) -> dict[str, tuple[float, int, int]]:
    return {pattern.label: (pattern.score, pattern.first_bar, pattern.last_bar) for pattern in detect(window)}


def falling(count: int, start: float, step: float) -> list[Row]:
    """Bars that fall: body of `step`, range of twice that."""
    return [
        (start - k * step, start - k * step + step / 2, start - (k + 1) * step - step / 2, start - (k + 1) * step) for k in range(count)
    ]


def test_doji_is_a_bar_that_ends_where_it_began() -> None:
    window = bars([PLAIN] * 19 + [(100.0, 101.0, 99.0, 100.0)])
    assert found(window)["doji"] == (1.0, 19, 19)


def test_body_of_more_than_a_tenth_is_no_doji() -> None:
    assert "doji" not in found(bars([PLAIN] * 19 + [(100.0, 101.0, 99.0, 100.25)]))


def test_bar_much_shorter_than_the_others_is_no_doji() -> None:
    assert "doji" not in found(bars([PLAIN] * 19 + [(100.0, 100.2, 99.8, 100.0)]))


def test_hammer_hangs_below_a_decline() -> None:
    decline = falling(19, 140.0, 2.0)
    close = decline[-1][3]
    score, first, last = found(bars([*decline, (close, close + 0.3, close - 5.0, close + 0.2)]))["hammer"]
    assert (first, last) == (19, 19)
    assert score > 0.9


def test_hammer_needs_the_decline() -> None:
    assert "hammer" not in found(bars([PLAIN] * 19 + [(100.0, 100.3, 98.0, 100.2)]))


def test_hammer_needs_a_short_upper_shadow() -> None:
    decline = falling(19, 140.0, 2.0)
    close = decline[-1][3]
    assert "hammer" not in found(bars([*decline, (close, close + 3.0, close - 5.0, close + 0.2)]))


def test_bullish_engulfing_encloses_the_falling_body_before_it() -> None:
    window = bars([PLAIN] * 18 + [(100.5, 101.0, 99.5, 100.0), (99.9, 101.5, 99.5, 101.0)])
    assert found(window)["bullish_engulfing"] == (1.0, 18, 19)


def test_bearish_engulfing_is_its_mirror() -> None:
    window = bars([PLAIN] * 18 + [(100.0, 101.0, 99.5, 100.5), (100.6, 101.0, 99.0, 99.5)])
    assert found(window)["bearish_engulfing"] == (1.0, 18, 19)


def test_body_that_only_overlaps_does_not_engulf() -> None:
    window = bars([PLAIN] * 18 + [(101.0, 101.5, 99.5, 100.0), (99.9, 101.0, 99.5, 100.9)])
    assert "bullish_engulfing" not in found(window)


def mountain(peaks: tuple[float, float], valley: float) -> Floats:
    """Return 20 bars with peaks at bars 5 and 13, the second 8 bars later, a valley between and a low end."""
    path = np.interp(np.arange(20), [0, 5, 9, 13, 19], [100.0, peaks[0], valley, peaks[1], 101.0])
    return bars([(price - 0.25, price + 0.5, price - 0.5, price + 0.25) for price in path])


def test_double_top_is_two_equal_peaks_over_a_valley() -> None:
    score, first, last = found(mountain((110.0, 110.0), 104.0))["double_top"]
    assert (first, last) == (5, 13)
    assert score == 1.0


@pytest.mark.parametrize(("peaks", "valley"), [((110.0, 113.0), 104.0), ((110.0, 110.0), 109.5)], ids=["uneven", "shallow"])
def test_uneven_peaks_or_a_shallow_valley_are_no_double_top(peaks: tuple[float, float], valley: float) -> None:
    assert "double_top" not in found(mountain(peaks, valley))


def test_breakout_leaves_a_quiet_range() -> None:
    window = bars([PLAIN] * 19 + [(100.5, 104.5, 100.0, 104.0)])
    assert found(window)["range_breakout_up"] == (1.0, 9, 19)


def test_no_breakout_from_a_wide_range() -> None:
    wide: list[Row] = [PLAIN, (106.0, 107.0, 105.0, 106.5)] * 9
    assert "range_breakout_up" not in found(bars([PLAIN, *wide, (107.0, 110.0, 106.0, 109.0)]))


def test_one_single_price_has_no_pattern() -> None:
    assert detect(flat(20)) == []


def test_missing_bars_take_part_in_no_pattern() -> None:
    window = np.concatenate([walk(18), np.full((2, 5), np.nan)])
    assert all(pattern.last_bar < 18 for pattern in detect(window))


@pytest.mark.parametrize("count", [1, 5])
def test_short_windows_have_what_fits_them(count: int) -> None:
    assert all(pattern.last_bar < count for pattern in detect(walk(count)))


@given(windows(20))
def test_patterns_are_few_sorted_and_inside_the_window(window: Floats) -> None:
    patterns = detect(window)
    assert len(patterns) <= MAX_PATTERNS
    assert all(0.5 <= pattern.score <= 1 for pattern in patterns)
    assert all(0 <= pattern.first_bar <= pattern.last_bar < 20 for pattern in patterns)
    ends = [pattern.last_bar for pattern in patterns]
    assert ends == sorted(ends, reverse=True)


MIRROR = {
    "double_top": "double_bottom",
    "range_breakout_up": "range_breakout_down",
    "bullish_engulfing": "bearish_engulfing",
    "doji": "doji",
}
MIRROR |= {other: label for label, other in MIRROR.items()}


@given(windows(20, levels=(1.0,)))
def test_upside_down_windows_have_the_mirrored_patterns(window: Floats) -> None:
    """Whole numbers reflect without rounding, so that the rules must agree exactly; a hammer has no mirror here."""
    turned = window.copy()
    turned[:, :VOLUME] = 300 - window[:, :VOLUME]
    turned[:, [1, 2]] = turned[:, [2, 1]]
    here = {(MIRROR[p.label], p.first_bar, p.last_bar) for p in detect(window) if p.label != "hammer"}
    there = {(p.label, p.first_bar, p.last_bar) for p in detect(turned) if p.label != "hammer"}
    assert here == there
