"""`aquiline replay` on a real Kafka: a run's every prompt is built again from the topics, and from what was exported of them."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from deploy.local import LocalKafka
from schemas import AuditRecord
from services.backtest.backtest_plan import prepare as prepare_backtest
from services.core.bus import BusError
from services.core.settings import EngineSettings
from services.demo.report import AUDIT, SIGNALS
from services.demo.run import run_demo
from services.demo.screen import Screen
from services.demo.setup import set_up
from services.doctor.settings_in_force import as_toml
from services.fusion.service import load_tokenizer
from services.inference.simulator.server import Simulator
from services.inference.simulator.timing import Calibration
from services.replay.replay_command import Source, ask_command, export_command, show_command, verify_command
from tests.integration.demo.test_demo import SMALL
from tests.unit.backtest.build import OPTIONS

pytestmark = pytest.mark.integration


async def _demo(folder: Path, bus: str) -> Path:
    """Play a small demo and return its settings as a file."""
    demo = set_up(dataclasses.replace(SMALL, bus=bus), folder)
    console = Console(file=io.StringIO(), width=200)
    assert await run_demo(demo, Screen(console)) == 0
    config = folder / "aquiline.toml"
    config.write_text(as_toml(demo.acts[-1].settings))
    return config


def _source(audit: Path | str, config: Path | None = None) -> Source:
    return Source(str(audit), None, None, None, config)


def _matched(capsys: pytest.CaptureFixture[str]) -> int:
    """Return how many prompts are said to have been built, all of them right. How many were asked depends on the machine."""
    found = re.search(r"(\d+) prompts rebuilt, every hash matches", capsys.readouterr().out)
    assert found is not None
    return int(found[1])


async def test_a_run_on_kafka_is_verified_from_the_topics_and_from_what_was_exported_and_can_be_backtested(
    tmp_path: Path, kafka: LocalKafka, capsys: pytest.CaptureFixture[str]
) -> None:
    config = await _demo(tmp_path, kafka.url)
    assert await verify_command(_source("topic", config))
    assert _matched(capsys) > 0
    options = dataclasses.replace(OPTIONS, data=("topic",), config=str(config), intervals=None, assignments=())
    plan = await prepare_backtest(options)
    assert {one.symbol for one in plan.feed.instruments} >= {"AAPL.XNAS", "MSFT.XNAS"}
    steps = list(plan.feed.steps())
    assert steps == sorted(steps, key=lambda step: step.at_ms)
    assert sum(len(step.fed) for step in steps) == plan.feed.total > 100
    await export_command(_source("topic", config), str(tmp_path / "kept"))
    capsys.readouterr()
    assert await verify_command(_source(tmp_path / "kept-audit.jsonl"))
    assert _matched(capsys) > 0
    assert await verify_command(_source(tmp_path / AUDIT))


async def test_after_a_demo_one_damaged_byte_is_found_and_named_and_decisions_are_shown_and_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await _demo(tmp_path, "memory://")
    audit = tmp_path / AUDIT
    lines = audit.read_bytes().splitlines()
    at_line, record = next((n, record) for n, line in enumerate(lines) if (record := AuditRecord.decode(line)).answer is not None)
    assert await show_command(_source(audit), str(record.trigger_id)[:8])
    shown = capsys.readouterr().out
    assert "the hash matches the audit" in shown
    assert "You are the decision step of a systematic trading desk" in shown
    assert record.answer is not None
    assert record.answer in shown
    calibration = Calibration.from_file(Path("services/inference/data/calibration-h100.json"))
    async with Simulator(calibration, load_tokenizer(EngineSettings()), time_scale=0).serving() as url:
        await ask_command(_source(audit), url, None, 1)
    assert "1 asked again: 1 identical answers" in capsys.readouterr().out.replace("\n", " ")
    signals = tmp_path / SIGNALS
    published = signals.read_bytes().splitlines()
    dropped = next(n for n, line in enumerate(published) if b'"kind":"signal"' in line)
    signals.write_bytes(b"\n".join(published[:dropped] + published[dropped + 1 :]) + b"\n")
    assert not await verify_command(_source(audit))
    assert "its outcome is published, but demo-signals.jsonl has no signal" in capsys.readouterr().out
    signals.write_bytes(b"\n".join(published) + b"\n")
    assert await verify_command(_source(audit))
    at = lines[at_line].index(b'"prompt_hash":"') + 20
    lines[at_line] = lines[at_line][:at] + bytes([lines[at_line][at] ^ 1]) + lines[at_line][at + 1 :]
    audit.write_bytes(b"\n".join(lines) + b"\n")
    assert not await verify_command(_source(audit))
    told = capsys.readouterr().out
    assert f"demo-audit.jsonl, line {at_line + 1}" in told
    assert str(record.trigger_id) in told


async def test_a_topic_that_does_not_exist_is_said_to_be_missing(tmp_path: Path, kafka: LocalKafka) -> None:
    config = tmp_path / "aquiline.toml"
    config.write_text(f'run_mode = "replay"\n[bus]\nurl = "{kafka.url}"\n')
    with pytest.raises(BusError, match=r"topic 'replay\..*does not exist"):
        await verify_command(_source("topic", config))
