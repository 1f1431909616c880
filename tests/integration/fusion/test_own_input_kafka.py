"""An input of a package and notes, each with its example producer, on a real Kafka: shown, in the as-of, and rebuilt by replay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local import LocalKafka, LocalRedis
from schemas import RunMode, Topic, topic_name
from services.core.clock import SystemClock
from services.replay.replay_command import Source, show_command
from tests.conftest import start_or_skip
from tests.integration.fusion import command
from tests.integration.fusion.feed import SYMBOLS
from tests.integration.fusion.site import Site
from tests.unit.examples.test_funding import EXAMPLE, REPOSITORY, installed

__all__ = ["installed"]

pytestmark = pytest.mark.integration

FEW = SYMBOLS[:2]
BARS = 25
HOUR_MS = 3_600_000


@pytest.fixture
async def site(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    redis_server: LocalRedis,
    installed: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Site]:
    """Return a site of its own Kafka, where the package is installed for workers and commands, with the rules engine."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), str(installed)]))
    strategy = tmp_path / "funding"
    strategy.mkdir()
    toml = (EXAMPLE / "strategy" / "strategy.toml").read_text()
    toml = toml.replace("1m = 256\n15m = 64\n1h = 64\n", "1m = 32\n").replace("epoch_slots = 64", "epoch_slots = 16")
    (strategy / "strategy.toml").write_text(toml)
    (strategy / "instructions.md").write_bytes((EXAMPLE / "strategy" / "instructions.md").read_bytes())
    with start_or_skip(LocalKafka(tmp_path_factory.mktemp("kafka"))) as kafka:
        made = Site(tmp_path, kafka.url, redis_server.url, "")
        own = {name: made.values["fusion"][name] for name in ("group", "log_id", "commit_interval_ms", "drain_ms", "prewarm")}
        made.values |= {"engine": {"kind": "rules"}, "fusion": {**own, "strategy": str(strategy)}}
        await made.open(symbols=FEW, history=0)
        yield made
        await made.close()


def produce(site: Site, script: str, topic: str, *lines: dict[str, object]) -> None:
    """Run an example producer on these lines, as its user does."""
    bootstrap = site.values["bus"]["url"].removeprefix("kafka://")
    command_line = [sys.executable, str(REPOSITORY / "examples" / script), bootstrap, topic, "demo"]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    ran = subprocess.run(command_line, input=text, text=True, capture_output=True, check=True)
    assert not ran.stderr


async def test_both_are_in_the_prompts_and_the_as_of_and_every_prompt_verifies(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    now_ms = SystemClock().now_ms()
    funding, notes = topic_name("funding", RunMode.DEMO), topic_name(Topic.NOTES, RunMode.DEMO)
    rates = [{"symbol": FEW[0], "rate": rate, "next_ms": now_ms + 900 * HOUR_MS} for rate in (0.0001, -0.00025)]
    produce(site, "producer/funding_producer.py", funding, *rates)
    produce(site, "producer/notes_producer.py", notes, {"symbol": "*", "text": "to all", "importance": 5})
    worker = await site.worker().start().ready()
    made = await site.feed(FEW, BARS)
    await site.logs.until(lambda: len(site.logs.ended) >= len(made), "an outcome for every bar", told=site.tails)
    asked = [one for one in site.logs.ended.values() if one.prompt_hash is not None and one.as_of is not None]
    assert asked
    named = {one.symbol: {name: ref.offset for name, ref in (one.as_of.tables or {}).items()} for one in asked if one.as_of is not None}
    assert named == {FEW[0]: {"notes": 0, "funding": 1}, FEW[1]: {"notes": 0}}
    assert await worker.metric("aquiline_table_records_total", topic="funding", result="folded") == 2

    code, said = await command.aquiline("replay", "--verify", "topic", "--config", str(site.config()))
    assert code == 0, said
    assert "every hash matches" in " ".join(said.split())
    last = max((one for one in asked if one.symbol == FEW[0]), key=lambda one: one.ts_done_ms)
    capsys.readouterr()
    assert await show_command(Source("topic", None, None, None, site.config()), str(last.trigger_id))
    shown = " ".join(capsys.readouterr().out.split())
    assert "shorts pay longs 0.0250 %." in shown
    assert 'desk on all symbols: "to all"' in shown
    code, said = await command.aquiline("topics", "describe", "--config", str(site.config()))
    assert code == 0, said
    assert funding in said
