"""Calibration: the fit finds the constants that times were made with, and a live engine's file is one the simulator takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from services.cli.engine import app
from services.core.clock import SystemClock
from services.inference import calibrate
from services.inference.launcher.process import EngineProcess
from services.inference.sglang_client import SGLangEngine
from services.inference.simulator.timing import Calibration
from tests.unit.inference_engine.test_serving import simulator

SHIPPED = Calibration.from_file(Path("services/inference/data/calibration-h100.json"))


@settings(max_examples=8, deadline=None)
@given(speed=st.floats(0.3, 3.0))
def test_the_fit_of_what_the_simulator_took_makes_a_simulator_that_takes_as_long(speed: float) -> None:
    timing = SHIPPED.timing
    faster = SHIPPED.model_copy(
        update={"timing": timing.model_copy(update={key: value * speed for key, value in timing.model_dump().items()})}
    )
    points = [point.model_copy(update={"median_ms": calibrate.simulated_ms(faster, point)}) for point in SHIPPED.points]
    again = SHIPPED.model_copy(update={"timing": calibrate.fit(points, SHIPPED.speculation.accept_length, SHIPPED.limits.chunk_tokens)})
    for point in points:
        assert calibrate.simulated_ms(again, point) == pytest.approx(point.median_ms, rel=0.06)


def test_the_shipped_constants_are_the_fit_of_the_shipped_points() -> None:
    made = calibrate.fit(SHIPPED.points, SHIPPED.speculation.accept_length, SHIPPED.limits.chunk_tokens)
    assert made.model_dump() == pytest.approx(SHIPPED.timing.model_dump(), rel=0.001)


def test_new_tokens_cost_on_top_of_what_a_step_always_takes() -> None:
    cached = [point for point in SHIPPED.points if point.output_tokens == 1 and point.new_tokens < point.prompt_tokens]
    tail, page = (next(point for point in cached if point.new_tokens == new) for new in (300, 1_024))
    assert calibrate.simulated_ms(SHIPPED, tail) == pytest.approx(tail.median_ms, rel=0.06)
    assert calibrate.simulated_ms(SHIPPED, page) == pytest.approx(page.median_ms, rel=0.06)


def test_too_few_points_are_refused() -> None:
    few = [point for point in SHIPPED.points if point.new_tokens < 8_192 or point.prompt_tokens == 8_192]
    with pytest.raises(calibrate.CalibrationError, match="1 cold, 7 cached points and 9 answers are too few"):
        calibrate.fit(few, 2.5, 8_192)


async def test_a_live_engine_is_measured_into_a_file_that_the_simulator_takes(tmp_path: Path) -> None:
    process = await EngineProcess.start(simulator(time_scale=1))
    try:
        await process.wait_until_up(60)
        engine = SGLangEngine(process._url, SystemClock())
        said: list[str] = []
        measured = await calibrate.measure(engine, lengths=[2_048, 4_096], at_once=[1, 2, 3], rounds=2, answer_tokens=24, say=said.append)
        made = calibrate.calibration(measured, await engine.info(), accelerator="none", source="a test")
        await engine.close()
    finally:
        await process.stop()
    assert len(made.points) == len(said) == 16
    assert made.speculation.draft_tokens == 4
    (tmp_path / "made.json").write_text(made.model_dump_json())
    assert Calibration.from_file(tmp_path / "made.json") == made


def test_an_engine_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    arguments = ["calibrate", "--url", "http://127.0.0.1:9", "--accelerator", "x", "--out", str(tmp_path / "x.json")]
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 2
    assert "refused: engine_unreachable" in ended.stderr
    assert not (tmp_path / "x.json").exists()
