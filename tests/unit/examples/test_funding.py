"""The example input, installed as its user would: its line is in prompts, its offset in the as-of, and prompts with it verify."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from aquiline_funding import FundingRate
from funding_producer import record
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import topic_name
from services.core import table_inputs
from services.core.bus import Record
from services.core.settings import Settings
from services.strategy.folder import read
from tests.unit.backtest.test_log_feed import appended, feed
from tests.unit.fusion import build
from tests.unit.fusion.build import MINUTE, MODE, START, SYMBOL, bar
from tests.unit.fusion.desk import HOLD, NOW, Desk, ScriptedEngine
from tests.unit.fusion.log import SYMBOLS, random_logs
from tests.unit.replay.build import SMALL, decide, verified

REPOSITORY = Path(__file__).parents[3]
EXAMPLE = REPOSITORY / "examples" / "funding"
TOPIC = topic_name("funding", MODE)
HOUR = 60 * MINUTE


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Install the package into a folder, put it on the path and return it."""
    target, source = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("source") / "funding"
    source.mkdir()
    for name in ("pyproject.toml", "aquiline_funding.py"):
        (source / name).write_bytes((EXAMPLE / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([*pip, str(source)], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(target))
        table_inputs.forget()
        yield target
    table_inputs.forget()


def funding(offset: int, rate: float, *, symbol: str = SYMBOL, at_ms: int = START, next_ms: int = START + 8 * HOUR) -> Record:
    key, value = record(json.dumps({"symbol": symbol, "rate": rate, "next_ms": next_ms}), at_ms, MODE.value)
    return Record(TOPIC, 0, offset, at_ms, key, value)


def test_what_its_producer_writes_is_its_message() -> None:
    made = FundingRate.decode(funding(0, -0.0002).value or b"")
    assert (made.symbol, made.rate, made.next_ms, made.ts_ms) == (SYMBOL, -0.0002, START + 8 * HOUR, START)


@pytest.mark.usefixtures("installed")
async def test_its_line_is_in_the_prompt_and_its_offset_on_the_signal() -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), min_bars=1, strategy=read(EXAMPLE / "strategy"))
    producer = await desk.bus.producer(client_id="test")
    for one in (funding(0, 0.0001, at_ms=NOW, next_ms=NOW + HOUR), funding(1, -0.00025, at_ms=NOW, next_ms=NOW + HOUR)):
        await (await producer.send(one.topic, key=one.key, value=one.value))
    async with desk.running():
        await desk.bars(bar(0))
        await desk.concluded(1)
    asked = build.tokenizer().decode(desk.engine.requests[-1].input_ids)
    assert ": shorts pay longs 0.0250 %.\n" in asked
    assert "longs pay shorts" not in asked
    [signal] = await desk.signals()
    assert {name: (ref.topic, ref.offset) for name, ref in (signal.as_of.tables or {}).items()} == {"funding": (TOPIC, 1)}


@pytest.mark.usefixtures("installed")
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_prompt_with_it_is_built_again_to_the_hash(seed: int) -> None:
    shown = _small()
    rng = random.Random(seed)  # noqa: S311
    told = [
        funding(offset, rng.uniform(-0.01, 0.01), symbol=rng.choice(SYMBOLS), at_ms=START + offset * MINUTE)
        if rng.random() < 0.8
        else Record(TOPIC, 0, offset, START + offset * MINUTE, rng.choice(SYMBOLS).encode(), None)
        for offset in range(30)
    ]

    async def holds() -> None:
        decided = await decide(rng, random_logs(rng, 40), shown, tables=told)
        with tempfile.TemporaryDirectory() as name:
            decided.write(Path(name))
            verdict = await verified(Path(name))
        assert verdict.differing == []
        assert verdict.matched == len(decided.audits)

    asyncio.run(holds())


@pytest.mark.usefixtures("installed")
async def test_an_audit_with_another_funding_in_the_log_is_found(tmp_path: Path) -> None:
    rng = random.Random(3)  # noqa: S311
    told = [funding(n, 0.0001 * n, symbol=symbol, at_ms=START + n * MINUTE) for n, symbol in enumerate(SYMBOLS * 6)]
    decided = await decide(rng, random_logs(rng, 40), _small(), tables=told)
    assert any("funding" in (one.as_of.tables or {}) for one in decided.audits if one.as_of is not None)
    decided.tables = [one._replace(value=(one.value or b"").replace(b'"rate": 0.', b'"rate": 0.9')) for one in decided.tables]
    decided.write(tmp_path)
    assert (await verified(tmp_path)).differing


def _small() -> Settings:
    strategy = read(EXAMPLE / "strategy")
    return SMALL.model_copy(update={"fusion": SMALL.fusion.model_copy(update={"strategy": strategy})})


@pytest.mark.usefixtures("installed")
def test_a_backtest_on_a_log_plays_it_at_its_instant() -> None:
    written_ms = START + 5 * MINUTE + 40
    played = feed(appended(*((START + (n + 1) * MINUTE + 40, bar(n, 100.0 + n % 7)) for n in range(12))))
    played.reference.take(funding(0, 0.0001, at_ms=written_ms), MODE)
    assert [step.at_ms for step in played.steps() if any(fed.topic.endswith(".funding") for fed in step.fed)] == [written_ms]


def test_its_strategy_passes_the_check_and_without_the_package_the_input_is_named(installed: Path) -> None:
    ran = _check(installed)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.startswith("funding-")
    ran = _run("show", installed)
    assert ": longs pay shorts 0.0100 %.\n" in ran.stdout
    ran = _check(None)
    assert ran.returncode == 2
    assert "inputs names 'funding', which no installed package registers" in ran.stderr
    assert "Traceback" not in ran.stderr


def _check(installed: Path | None) -> subprocess.CompletedProcess[str]:
    return _run("check", installed)


def _run(command_name: str, installed: Path | None) -> subprocess.CompletedProcess[str]:
    paths = [str(REPOSITORY), *([] if installed is None else [str(installed)])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AQUILINE_")}
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-c", "from services.cli.main import main; main()", "strategy", command_name, str(EXAMPLE / "strategy")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
