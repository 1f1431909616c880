"""`aquiline replay` on a real Kafka: a run's every prompt is built again from the topics, and from what was exported of them."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from deploy.local import LocalKafka
from schemas import AuditRecord
from services.cli.config import as_toml
from services.cli.demo.loglines import LogLines
from services.cli.demo.prepare import prepare
from services.cli.demo.report import AUDIT
from services.cli.demo.run import show
from services.cli.replay.run import Source, ask_command, export_command, show_command, verify_command
from services.core.bus import BusError
from services.core.settings import EngineSettings
from services.fusion.service import load_tokenizer
from services.inference.simulator.server import Simulator
from services.inference.simulator.timing import Calibration
from tests.integration.demo.test_demo import SMALL

pytestmark = pytest.mark.integration


async def _demo(folder: Path, bus: str) -> Path:
    """Play a small demo and return its settings as a file."""
    run, _, _ = prepare(dataclasses.replace(SMALL, bus=bus), folder)
    console = Console(file=io.StringIO(), width=200)
    assert await show(run, console, LogLines(console)) == 0
    config = folder / "aquiline.toml"
    config.write_text(as_toml(run.settings))
    return config


def _source(audit: Path | str, config: Path | None = None) -> Source:
    return Source(str(audit), None, None, None, config)


async def test_a_run_on_kafka_is_verified_from_the_topics_and_from_what_was_exported(
    tmp_path: Path, kafka: LocalKafka, capsys: pytest.CaptureFixture[str]
) -> None:
    config = await _demo(tmp_path, kafka.url)
    assert await verify_command(_source("topic", config))
    assert "12 prompts built anew, every hash matches" in capsys.readouterr().out
    await export_command(_source("topic", config), str(tmp_path / "kept"))
    capsys.readouterr()
    assert await verify_command(_source(tmp_path / "kept-audit.jsonl"))
    assert "12 prompts built anew, every hash matches" in capsys.readouterr().out
    assert await verify_command(_source(tmp_path / AUDIT))


async def test_after_a_demo_one_damaged_byte_is_found_and_named_and_decisions_are_shown_and_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await _demo(tmp_path, "memory://")
    audit = tmp_path / AUDIT
    lines = audit.read_bytes().splitlines()
    record = AuditRecord.decode(lines[4])
    assert await show_command(_source(audit), str(record.trigger_id)[:8])
    shown = capsys.readouterr().out
    assert "the hash is the one in the audit" in shown
    assert "You are the decision step of a systematic trading desk" in shown
    assert record.answer is not None
    assert record.answer in shown
    calibration = Calibration.from_file(Path("services/inference/data/calibration-h100.json"))
    async with Simulator(calibration, load_tokenizer(EngineSettings()), time_scale=0).serving() as url:
        await ask_command(_source(audit), url, None, 5)
    assert "5 asked again: 5 with the same answer to the letter" in capsys.readouterr().out.replace("\n", " ")
    at = lines[4].index(b'"prompt_hash":"') + 20
    lines[4] = lines[4][:at] + bytes([lines[4][at] ^ 1]) + lines[4][at + 1 :]
    audit.write_bytes(b"\n".join(lines) + b"\n")
    assert not await verify_command(_source(audit))
    told = capsys.readouterr().out
    assert "demo-audit.jsonl, line 5" in told
    assert str(record.trigger_id) in told


async def test_a_topic_that_does_not_exist_is_said_to_be_missing(tmp_path: Path, kafka: LocalKafka) -> None:
    config = tmp_path / "aquiline.toml"
    config.write_text(f'run_mode = "replay"\n[bus]\nurl = "{kafka.url}"\n')
    with pytest.raises(BusError, match=r"topic 'replay\..*does not exist"):
        await verify_command(_source("topic", config))
