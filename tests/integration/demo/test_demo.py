"""The demo, small and fast: its sums hold and its report agrees with its files, in one process and through real parts."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import io
import json
import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deploy.local import LocalKafka, LocalRedis
from schemas import AuditRecord, MarketFeatures, Outcome, Signal, decode_signal_message
from services.core.exported_log import read_log
from services.core.settings import SettingsError, load
from services.demo import plan, setup
from services.demo.report import AUDIT, LOG, REPORT, SIGNALS
from services.demo.run import run_demo
from services.demo.screen import Screen
from services.demo.setup import set_up
from services.fusion.prompt.version import version_of
from services.inference import own_engine
from services.inference.local.weights import LocalEngineError, Weights
from services.inference.own_engine import simulator
from services.replay.replay_command import Source, show_command, verify_command
from services.strategy.folder import new, read
from tests.integration.inference.local import weights
from tests.unit.demo.build import DEFAULTS

SMALL = dataclasses.replace(
    DEFAULTS,
    symbols="AAPL,MSFT",
    bars=6,
    pace=10.0,
    burst=False,
    outage=False,
    time_scale=0.0,
    history_from=dt.datetime(2011, 6, 1, tzinfo=dt.UTC),
)


PATIENT = (
    "fusion.vision_wait_ms=600000",
    "fusion.max_staleness_ms=600000",
    'fusion.entry_validity_ms={"1d": 600000}',
)
"""A bar waits for its chart, and no decision is late: on a busy machine both may take seconds."""


async def _run(folder: Path, *, in_step: bool = False, **changes: object) -> tuple[int, dict[str, Any], str]:
    """Run the demo; `in_step` publishes each bar when those before it are decided, however long that takes."""
    demo = set_up(dataclasses.replace(SMALL, **changes), folder)  # type: ignore[arg-type]
    if in_step:
        demo = dataclasses.replace(demo, acts=[dataclasses.replace(act, plan=_waiting(act.plan)) for act in demo.acts])
    console = Console(file=io.StringIO(), width=200)
    code = await run_demo(demo, Screen(console))
    assert isinstance(console.file, io.StringIO)
    return code, json.loads((folder / REPORT).read_text()), console.file.getvalue()


def _waiting(played: plan.Plan) -> plan.Plan:
    return dataclasses.replace(played, phases=tuple(map(_in_step, played.phases)))


def _in_step(phase: plan.PhasePlan) -> plan.PhasePlan:
    bars = tuple((0.0, candle) for _, candle in phase.bars)
    return dataclasses.replace(phase, bars=bars, duration_s=600.0, in_step=True)


def _audits(folder: Path) -> dict[object, AuditRecord]:
    lines = (folder / AUDIT).read_bytes().splitlines()
    return {audit.trigger_id: audit for audit in map(AuditRecord.decode, lines)}


def _signals(folder: Path) -> list[Signal]:
    messages = map(decode_signal_message, (folder / SIGNALS).read_bytes().splitlines())
    return [message for message in messages if isinstance(message, Signal)]


def _bars(folder: Path) -> list[MarketFeatures]:
    """Return every closed daily bar of the log."""
    records = [line.record for line in read_log(folder / LOG)[1] if line.record is not None]
    bars = [MarketFeatures.decode(one.value or b"") for one in records if one.topic == "demo.market-features"]
    return [bar for bar in bars if bar.interval == "1d" and bar.closed]


def _assert_sums_hold(folder: Path, report: dict[str, Any]) -> None:
    """Check the sums anew, from the files alone: of the run, and of each act."""
    for one in (report, *report["acts"]):
        assert one["records"] == sum(one[end] for end in ("folded", "duplicates", "filtered", "dead_lettered"))
        assert one["triggers"] == sum(one["outcomes"].values())
    assert report["triggers"] == sum(act["triggers"] for act in report["acts"])
    audits = _audits(folder)
    assert Counter(audit.outcome.value for audit in audits.values()) == Counter(report["outcomes"])
    signals = {signal.signal_id for signal in _signals(folder)}
    assert {audit.signal_id for audit in audits.values() if audit.outcome is Outcome.PUBLISHED} == signals
    assert all(one["ok"] for act in report["acts"] for one in act["sums"])
    assert len({tuple(one["what"] for one in act["sums"]) for act in report["acts"]}) == 1


async def _verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what `aquiline replay --verify` says of the demo's files, all of which match."""
    assert await verify_command(Source(str(folder / AUDIT), None, None, None, None))
    return capsys.readouterr().out


@pytest.mark.integration
async def test_a_run_publishes_a_signal_for_every_bar_and_leaves_its_files(tmp_path: Path) -> None:
    code, report, said = await _run(tmp_path, in_step=True, assignments=list(PATIENT))
    assert code == 0
    _assert_sums_hold(tmp_path, report)
    (act,) = report["acts"]
    assert report["triggers"] == report["outcomes"]["published"] == 12
    assert set(report) >= {"bus", "redis", "machine", "duration_s"}
    assert set(act) >= {"engine", "settings", "duration_s", "vision", "prefix_hit_ratio_all"}
    assert act["prefix_hit_ratio"] > 0.9
    assert set(act["latency_ms"]) == {"total", "fold", "vision_wait", "queue", "prompt", "first_token", "decision", "publish"}
    # A symbol's first bar is not waited with: no vision features have come for it yet.
    first_ms = min(audit.trigger.ts_event_ms for audit in _audits(tmp_path).values())
    assert {audit.vision for audit in _audits(tmp_path).values() if audit.trigger.ts_event_ms > first_ms} == {"fresh"}
    assert act["engine"]["source"] == "simulator"
    assert act["sources"] == {"simulator": act["outcomes"]["published"]}
    assert said.count("SIMULATOR / DEMO") >= 4
    assert "Try next" in said


@pytest.mark.integration
@pytest.mark.timeout(900)
async def test_a_real_model_decides_in_the_first_act_and_both_acts_can_be_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights()
    # Short prompts: the CPU reads some 100 tokens a second, and less where tests share it.
    monkeypatch.setattr(
        setup,
        "MODEL_FUSION",
        setup.MODEL_FUSION | {"window_bars": 20, "epoch_slots": 16, "entry_validity_ms": {"1d": 500_000}, "max_staleness_ms": 400_000},
    )
    monkeypatch.setattr(plan, "MODEL_S", 500.0)
    code, report, said = await _run(tmp_path, in_step=True, model_bars=2, assignments=list(PATIENT[1:]))
    assert code == 0
    _assert_sums_hold(tmp_path, report)
    model, load = report["acts"]
    assert model["engine"]["source"] == "llm"
    assert model["sources"] == {"llm": 4}
    assert model["valid_answer_ratio"] == 1
    assert load["sources"] == {"simulator": 12}
    assert [signal.source for signal in _signals(tmp_path)] == ["llm"] * 4 + ["simulator"] * 12
    closes = [(record.symbol, record.ts_close_ms) for record in _bars(tmp_path)]
    assert len(closes) == len(set(closes)), "no bar is published twice"
    assert "Act 1 of 2: a real model decides" in said
    assert "Act 2 of 2: load, burst, outage and recovery" in said
    assert "16 prompts rebuilt, every hash matches" in await _verified(tmp_path, capsys)


async def test_bars_that_trigger_nothing_do_not_hold_up_the_act_that_waits_for_decisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "local_model", lambda **_: simulator(seed=0, time_scale=0.0))
    code, report, _ = await _run(tmp_path, model_bars=6, min_gap_bars=2)
    assert code == 0
    _assert_sums_hold(tmp_path, report)
    assert 0 < report["acts"][0]["triggers"] < 12


@pytest.mark.integration
async def test_where_the_real_model_cannot_be_had_the_demo_says_so_and_plays_the_second_act_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(_: object) -> Weights:
        raise LocalEngineError("pip cannot fetch the weights")

    monkeypatch.setattr(own_engine, "fetch", fetch)
    code, report, said = await _run(tmp_path, in_step=True, model_bars=2, assignments=list(PATIENT[1:]))
    assert code == 0
    _assert_sums_hold(tmp_path, report)
    assert [act["name"] for act in report["acts"]] == [setup.LOAD_ACT]
    assert "the real model is not available, so the simulator plays alone: pip cannot fetch the weights" in said
    assert "12 prompts rebuilt, every hash matches" in await _verified(tmp_path, capsys)


@pytest.mark.integration
async def test_a_stock_listed_on_the_way_is_blocked_until_it_has_bars_enough(tmp_path: Path) -> None:
    start = dt.datetime(2012, 5, 16, tzinfo=dt.UTC)
    patient = list(PATIENT)
    code, report, said = await _run(tmp_path, in_step=True, symbols="FB,IBM", bars=24, start=start, vision="none", assignments=patient)
    assert code == 0
    _assert_sums_hold(tmp_path, report)
    (act,) = report["acts"]
    assert act["reasons"]["blocked/min_bars"] == 19
    assert act["vision"] == {"fresh": 0, "stale": 0, "absent": report["outcomes"]["published"]}
    assert "FB.XNAS is listed on 2012-05-18" in said


@pytest.mark.integration
async def test_an_outage_ends_in_failures_and_never_in_a_view(tmp_path: Path) -> None:
    code, report, said = await _run(tmp_path, outage=True, pace=8.0)
    assert code == 0
    _assert_sums_hold(tmp_path, report)
    (act,) = report["acts"]
    assert act["outcomes_by_phase"]["outage"]["failed"] > 0
    assert act["outcomes_by_phase"]["recovery"]["published"] > 0
    assert all(audit.action is None for audit in _audits(tmp_path).values() if audit.outcome is Outcome.FAILED)
    assert act["engine_outage_s"] >= 3
    assert "the engine answers again" in said


@pytest.mark.integration
async def test_live_charts_need_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    code, report, _ = await _run(tmp_path, in_step=True, vision="live", assignments=list(PATIENT))
    assert code == 0
    _assert_sums_hold(tmp_path, report)
    assert "fresh" in {audit.vision for audit in _audits(tmp_path).values()}


@pytest.mark.integration
async def test_through_a_real_kafka_and_redis_it_is_the_same_twice(tmp_path: Path, kafka: LocalKafka, redis_server: LocalRedis) -> None:
    for _ in range(2):
        code, report, _ = await _run(tmp_path, bus=kafka.url, redis=redis_server.url)
        assert code == 0
        _assert_sums_hold(tmp_path, report)
        assert report["triggers"] == 12
        assert report["bus"] == kafka.url
        assert report["redis"] == redis_server.url


async def test_the_simulator_comes_back_at_its_address() -> None:
    engine, settings = simulator(seed=0, time_scale=0.0), load(None, {"run_mode": "demo"})
    try:
        urls = (await engine.start(settings, print)).engine.urls
        await engine.kill()
        assert (await engine.start(settings, print)).engine.urls == urls
    finally:
        await engine.kill()


@pytest.mark.integration
async def test_an_interrupt_plays_no_more_and_still_decides_and_reports(tmp_path: Path) -> None:
    options = ["--symbols", "AAPL,IBM", "--bars", "400", "--pace", "5", "--time-scale", "0", "--no-burst", "--no-outage"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from services.cli.main import main; main()",
        "demo",
        *options,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    while not (line := await process.stdout.readline()).startswith(b"2011"):
        assert line, "the demo ended before its first signal"
    process.send_signal(signal.SIGINT)
    said = (await process.stdout.read()).decode()
    assert await process.wait() == 128 + signal.SIGINT
    assert "interrupted: no more bars" in said
    report = json.loads((tmp_path / REPORT).read_text())
    assert report["interrupted"]
    assert 0 < report["triggers"] < 800
    _assert_sums_hold(tmp_path, report)


async def test_an_engine_that_does_not_answer_is_reported_before_anything_is_played(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"the engine at http://127\.0\.0\.1:1 does not answer: .*leave --engine out"):
        await _run(tmp_path, engine="http://127.0.0.1:1")
    assert not (tmp_path / REPORT).exists()


@pytest.mark.integration
async def test_a_new_strategy_decides_with_a_feature_of_its_own_and_every_prompt_verifies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "momentum"
    new(folder, "momentum")
    code, report, said = await _run(tmp_path, strategy=str(folder))
    assert code == 0
    _assert_sums_hold(tmp_path, report)
    assert "words, facts, columns, levels and limits are the strategy's" in " ".join(said.split())
    assert all("mom_12" in bar.features for bar in _bars(tmp_path)[-10:])
    assert {signal.prompt_version for signal in _signals(tmp_path)} == {version_of(read(folder))}
    shutil.rmtree(folder)  # the log contains the strategy
    assert "every hash matches" in await _verified(tmp_path, capsys)
    assert await show_command(Source(str(tmp_path / AUDIT), None, None, None, None), str(_signals(tmp_path)[-1].signal_id))
    shown = capsys.readouterr().out
    assert "mom_12, the change over 12 bars, of this desk's own" in " ".join(shown.split())
    assert " mom_12=" in shown
