"""Chart images: golden ones, and what holds for every window."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from services.vision.render import CLOSE, HIGH, LOW, OPEN, VOLUME, ChartSpec, Floats, image_hash, moving_average, render
from tests.unit.vision.build import bars, flat, walk, windows

GOLDEN = Path(__file__).parent / "golden"

CASES = {
    "5-plain": (ChartSpec(5, moving_average=False, volume=False), walk(5)),
    "5": (ChartSpec(5), walk(9)),
    "20": (ChartSpec(20), walk(39)),
    "20-short-history": (ChartSpec(20), walk(25, seed=2)),
    "20-gap": (ChartSpec(20), np.concatenate([walk(30), np.full((2, 5), np.nan), walk(7, seed=3)])),
    "60": (ChartSpec(60), walk(119)),
}


def picture(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    return "".join("".join("#" if pixel else "." for pixel in row) + "\n" for row in image)


@pytest.mark.parametrize("name", CASES)
def test_image_is_the_golden_one(name: str) -> None:
    """Each image is pixel for pixel the one that was looked at; GOLDEN=write makes them anew."""
    spec, history = CASES[name]
    drawn = picture(render(spec, history[None])[0])
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("GOLDEN") == "write":
        file.write_text(drawn)
    assert drawn == file.read_text()


def test_hash_is_of_the_pixels_and_stays() -> None:
    assert image_hash(render(ChartSpec(), walk(39)[None])[0]) == "7427ffb1d187c58d423c0fec55729ad5fc142ff72c6846c34728bd7c2d03dccb"


@pytest.mark.parametrize(("count", "height", "width"), [(5, 32, 15), (20, 64, 60), (60, 96, 180)])
def test_sizes_are_those_of_the_specification(count: int, height: int, width: int) -> None:
    spec = ChartSpec(count)  # type: ignore[arg-type]
    assert render(spec, walk(spec.history)[None]).shape == (1, height, width)
    assert (spec.height, spec.width) == (height, width)


def test_other_numbers_of_bars_are_refused() -> None:
    with pytest.raises(ValueError, match="7 bars has no specification"):
        ChartSpec(7)  # type: ignore[arg-type]


@given(windows())
def test_every_window_renders_black_and_white_and_touches_its_extremes(window: Floats) -> None:
    spec = ChartSpec(20, moving_average=False)
    image = render(spec, window[None])[0]
    assert set(np.unique(image)) <= {0, 255}
    shown = window[-20:]
    if shown[:, HIGH].max() > shown[:, LOW].min():
        assert image[0].any()
        assert image[spec.price_height - 1].any()
    assert not image[spec.price_height].any(), "the row between prices and volume stays empty"


@given(windows())
def test_bars_ticks_are_where_their_prices_are(window: Floats) -> None:
    """High is not below the ticks, low not above; the open's tick is on the left, the close's on the right, one pixel each."""
    spec = ChartSpec(20, moving_average=False, volume=False)
    image = render(spec, window[None])[0] > 0
    for bar in range(20):
        left, middle, right = (np.flatnonzero(image[:, 3 * bar + column]) for column in range(3))
        assert len(left) == len(right) == 1
        assert middle[0] <= min(left[0], right[0])
        assert middle[-1] >= max(left[0], right[0])
        assert len(middle) == middle[-1] - middle[0] + 1
        opened, close = window[-20 + bar, OPEN], window[-20 + bar, CLOSE]
        assert (close > opened) <= (right[0] <= left[0])


@given(windows())
def test_scale_of_prices_and_volume_does_not_show(window: Floats) -> None:
    """A price in cents or in pounds makes the same picture: powers of two scale exactly."""
    scaled = window * np.array([4.0, 4.0, 4.0, 4.0, 0.5])
    spec = ChartSpec()
    assert (render(spec, window[None]) == render(spec, scaled[None])).all()


@given(windows(), windows())
def test_a_batch_is_its_images_one_by_one(first: Floats, second: Floats) -> None:
    spec = ChartSpec()
    together = render(spec, np.stack([first, second]))
    assert (together[0] == render(spec, first[None])[0]).all()
    assert (together[1] == render(spec, second[None])[0]).all()


def test_constant_price_is_a_line_in_the_middle() -> None:
    spec = ChartSpec(20, volume=False)
    image = render(spec, flat(39)[None])[0]
    assert np.flatnonzero(image.any(axis=1)).tolist() == [31]
    assert image[31].all()


def test_zero_volume_draws_no_volume() -> None:
    spec = ChartSpec()
    image = render(spec, flat(39, volume=0.0)[None])[0]
    assert not image[spec.price_height :].any()


def test_the_highest_volume_fills_its_area() -> None:
    history = flat(39)
    history[-1, VOLUME] = 4.0
    image = render(ChartSpec(), history[None])[0] > 0
    assert image[52:, 58].all()
    assert image[52:, 55].sum() == 3


def test_a_missing_bar_is_an_empty_column_and_ends_the_moving_average() -> None:
    spec, history = CASES["20-gap"]
    image = render(spec, history[None])[0]
    assert not image[:, 33:39].any()
    assert np.isnan(moving_average(spec, history[None])[0, 11:]).all()


def test_steep_moving_average_has_no_holes() -> None:
    """Each column of the line touches the next, however far prices move in a bar."""
    rows = [(price, price, price, price) for price in (1.0, 1.0, 1.0, 1.0, 1.0, 500.0, 1.0, 900.0, 1.0)]
    spec = ChartSpec(5, volume=False)
    image = render(spec, bars(rows)[None])[0] > 0
    line = [np.flatnonzero(image[:, column]) for column in range(1, 14)]
    for here, following in itertools.pairwise(line):
        assert min(abs(int(a) - int(b)) for a in here for b in following) <= 1


def test_moving_average_is_the_mean_of_the_last_closes() -> None:
    history = walk(39)
    average = moving_average(ChartSpec(), history[None])[0]
    assert average == pytest.approx([history[k : k + 20, CLOSE].mean() for k in range(20)])


@pytest.mark.parametrize(
    ("history", "said"),
    [
        (walk(19), "at least 20"),
        (walk(39)[:, :4], "at least 20"),
        (np.full((39, 5), np.nan), "no price at all"),
        (np.full((39, 5), np.inf), "infinite"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_reason(history: Floats, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        render(ChartSpec(), history[None])
