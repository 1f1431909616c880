"""What works where torch is not installed: everything but training and a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from schemas import Pattern, RunMode
from services.cli.vision import app
from services.feeds.samples import SYMBOLS, load_stocks
from services.vision import picture
from services.vision.recorded import load_recorded, save_recorded
from services.vision.render import ChartSpec, render
from services.vision.training_series import MissingDataError, index_series
from tests.unit.vision.build import walk

_BLOCKED = "import sys; sys.modules['torch'] = None\n"


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    "module",
    [
        "services.cli.vision",
        "services.vision.record_features",
        "services.vision.service",
        "services.vision.evaluation",
        "services.vision.__main__",
    ],
)
def test_importing_it_imports_no_torch(module: str) -> None:
    ended = python(f"import sys, {module}; assert not {{'torch', 'matplotlib', 'arch'}} & set(sys.modules)")
    assert ended.returncode == 0, ended.stderr


def test_training_says_what_to_install() -> None:
    ended = python(f"{_BLOCKED}from services.cli.vision import app\napp(['train'])")
    assert ended.returncode == 1
    assert "is not installed" in ended.stderr
    assert "pip install 'aquiline[vision" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_shipped_network_looks_at_charts() -> None:
    ended = python(
        f"{_BLOCKED}import numpy\nfrom services.vision.loading import load_forecaster\n"
        "assert 0 < load_forecaster().p_up(numpy.zeros((1, 64, 60), numpy.uint8))[0] < 1"
    )
    assert ended.returncode == 0, ended.stderr


def test_a_service_on_a_gpu_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_VISION__DEVICE", "cuda")
    monkeypatch.setenv("AQUILINE_HTTP__PORT", "0")
    ended = python(
        f"{_BLOCKED}from services.vision.__main__ import build\nfrom services.core.lifecycle import run_service\n"
        "sys.exit(run_service('vision', build, []))"
    )
    assert ended.returncode == 2
    assert "pip install 'aquiline[vision]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_training_data_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arch", None)
    with pytest.raises(MissingDataError, match="NASDAQ comes from the package arch, which is not installed"):
        index_series()


def test_recorded_features_cover_the_demo() -> None:
    """Every daily bar of 2012 and 2013 that ends a window of 20 has its features."""
    recorded = load_recorded()
    first_ms = min(end_ms for _, end_ms in recorded)
    for symbol, candles in load_stocks(RunMode.DEMO).items():
        wanted = {bar.ts_close_ms for bar in candles[19:] if bar.ts_close_ms >= first_ms}
        assert wanted == {end_ms for name, end_ms in recorded if name == symbol}
    assert {name for name, _ in recorded} == set(SYMBOLS.values())


def test_recorded_features_are_written_as_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    recorded = list(load_recorded().values())[:50]
    save_recorded(recorded, tmp_path / "one.gz")
    save_recorded(reversed(recorded), tmp_path / "two.gz")
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()
    assert list(load_recorded(tmp_path / "one.gz").values()) == sorted(recorded, key=lambda one: (one.window_end_ms, one.symbol))


def test_an_enlarged_picture_holds_the_pixels_of_the_image(tmp_path: Path) -> None:
    image = render(ChartSpec(5), walk(9)[None])[0]
    picture.enlarge(image, 2).save(tmp_path / "chart.png")
    with PIL.Image.open(tmp_path / "chart.png") as saved:
        pixels = np.asarray(saved)
    assert pixels.shape == (64, 30, 3)
    for channel in range(3):
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            assert (pixels[row::2, column::2, channel] == image).all()


def test_annotations_leave_the_charts_own_pixels_alone() -> None:
    image = render(ChartSpec(), walk(39)[None])[0]
    patterns = [Pattern(label="double_top", score=0.7, first_bar=0, last_bar=19)]
    annotated = np.asarray(picture.annotate(image, patterns, scale=4, footer="A.X 1d"))
    plain = np.asarray(picture.enlarge(image, 4))
    assert (annotated[: len(plain)] == plain).all()
    below = annotated[len(plain) :]
    assert len(np.unique(below.reshape(-1, 3), axis=0)) > 2, "a bracket, its label and the footer are drawn below the chart"


def test_render_draws_a_chart_of_real_bars(tmp_path: Path) -> None:
    out = tmp_path / "chart.png"
    ended = CliRunner().invoke(app, ["render", "--symbol", "AAPL", "--out", str(out), "--until", "2012-11-20", "--detections"])
    assert ended.exit_code == 0, ended.output
    assert "AAPL.XNAS 1d 2012-11-20 jkx-20/1+ma+vol" in ended.output
    assert "hammer" in ended.output
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--symbol", "TSLA"], "no bars of 'TSLA' are shipped"),
        (["--symbol", "FB", "--until", "2012-05-25"], "has 6 bars up to 2012-05-25"),
        (["--symbol", "IBM", "--bars", "7"], "7 bars has no specification"),
    ],
)
def test_render_refuses_what_it_cannot_draw(tmp_path: Path, options: list[str], said: str) -> None:
    ended = CliRunner().invoke(app, ["render", "--out", str(tmp_path / "x.png"), *options])
    assert ended.exit_code == 1
    assert said in ended.output
