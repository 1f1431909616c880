"""A backtest comes out the same to the byte each time, also when it was stopped or killed; nothing of the future shows in it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from schemas import Outcome, RunMode
from services.backtest import runner
from services.backtest.backtest_plan import worker_dependencies
from services.backtest.checkpoint import AUDIT, LOG
from services.backtest.runner import EngineDownError
from services.core import logs
from services.core.bus.memory import MemoryBus
from services.core.clock import VirtualClock
from services.core.settings import EngineSettings, LogSettings, Settings
from services.fusion.rooms import WorkerDependencies
from services.fusion.service import load_tokenizer
from services.inference.engine import Chunk, EngineError, EngineRequest
from services.inference.simulator.instant import InstantSimulator
from services.replay.audit_trail import read_trail_file
from services.replay.log_source import FileLog
from services.replay.prompt_rebuilder import PromptRebuilder
from services.replay.verify_audit import AuditVerifier
from tests.unit.backtest.build import SYMBOLS, Ran, after, candle, plan, run, walk
from tests.unit.fusion.build import MINUTE, START, seen, split

BARS = 70


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    logs.configure(LogSettings(level="error"), service="test")
    return asyncio.run(run(plan(walk(BARS)), tmp_path_factory.mktemp("unstopped")))


async def test_every_bar_is_asked_about_once_and_signals_get_outcomes(unstopped: Ran) -> None:
    assert unstopped.ended
    assert len(unstopped.audits) == len({audit.trigger_id for audit in unstopped.audits}) == len(walk(BARS))
    ended = {outcome: sum(audit.outcome is outcome for audit in unstopped.audits) for outcome in Outcome}
    assert ended[Outcome.BLOCKED] > 0
    assert ended[Outcome.PUBLISHED] == len(unstopped.signals) > BARS
    assert ended[Outcome.FAILED] == ended[Outcome.STALE] == ended[Outcome.CONFLATED] == 0
    assert {outcome.signal_id for outcome in unstopped.outcomes} <= {signal.signal_id for signal in unstopped.signals}
    assert len(unstopped.outcomes) > 10
    assert all(one.run_mode is RunMode.REPLAY for one in (*unstopped.signals, *unstopped.audits, *unstopped.outcomes))


async def test_the_same_run_again_gives_the_same_bytes(unstopped: Ran, tmp_path: Path) -> None:
    again = await run(plan(walk(BARS)), tmp_path)
    assert again.bytes() == unstopped.bytes()


@pytest.mark.parametrize("stops", [(1,), (30, 47)])
async def test_a_run_that_was_stopped_and_resumed_gives_the_same_bytes(unstopped: Ran, tmp_path: Path, stops: tuple[int, ...]) -> None:
    for stop in stops:
        wanted, on_step = after(stop)
        part = await run(plan(walk(BARS)), tmp_path, wanted, on_step)
        assert not part.ended
    last = await run(plan(walk(BARS)), tmp_path)
    assert last.ended
    assert last.bytes() == unstopped.bytes()
    assert len(last.runner.bars[SYMBOLS[0]]) == len(unstopped.runner.bars[SYMBOLS[0]])


async def test_what_a_killed_run_wrote_after_its_checkpoint_is_played_again(unstopped: Ran, tmp_path: Path) -> None:
    wanted, on_step = after(30)
    await run(plan(walk(BARS)), tmp_path, wanted, on_step)
    for name in ("signals.jsonl", "audit.jsonl", "outcomes.jsonl", LOG):
        with (tmp_path / name).open("ab") as file:
            file.write(b"half a li")
    last = await run(plan(walk(BARS)), tmp_path)
    assert last.bytes() == unstopped.bytes()


async def test_every_prompt_of_a_run_that_was_resumed_can_be_replayed_from_the_log_it_leaves(tmp_path: Path) -> None:
    wanted, on_step = after(25)
    await run(plan(walk(BARS)), tmp_path, wanted, on_step)
    last = await run(plan(walk(BARS)), tmp_path)
    inputs = FileLog(tmp_path / LOG, None)
    verifier = AuditVerifier([PromptRebuilder(inputs.settings, load_tokenizer(inputs.settings.engine))], inputs, lambda _: None)
    verdict = await verifier.verify(read_trail_file(tmp_path / AUDIT))
    assert verdict.all_match
    assert verdict.matched == sum(audit.prompt_hash is not None for audit in last.audits) > 0


class Failing(InstantSimulator):
    """Answers so many questions, and then no more."""

    def __init__(self, answers: int) -> None:
        super().__init__(load_tokenizer(EngineSettings()))
        self._left = answers

    def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        self._left -= 1
        if self._left < 0:
            raise EngineError("engine_unreachable", "nobody is there")
        return super().stream(request)


def _with(monkeypatch: pytest.MonkeyPatch, make: Callable[[VirtualClock], InstantSimulator]) -> None:
    """Have runs ask the engine that `make` makes."""

    def with_engine(settings: Settings, engine: str, clock: VirtualClock, bus: MemoryBus) -> WorkerDependencies:
        return dataclasses.replace(worker_dependencies(settings, engine, clock, bus), engine=make(clock))

    monkeypatch.setattr(runner, "worker_dependencies", with_engine)


async def test_an_engine_that_is_gone_ends_a_run_where_it_can_be_resumed(
    unstopped: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        _with(patched, lambda _: Failing(40))
        with pytest.raises(EngineDownError, match=r"engine_unreachable: nobody is there.*--resume"):
            await run(plan(walk(BARS)), tmp_path)
    assert (await run(plan(walk(BARS)), tmp_path)).bytes() == unstopped.bytes()


async def test_a_run_that_has_ended_can_be_reported_on_again(unstopped: Ran) -> None:
    again = await run(plan(walk(BARS)), unstopped.path)
    assert again.ended
    assert again.runner.bars == unstopped.runner.bars
    assert again.runner.judges.open_signals == unstopped.runner.judges.open_signals > 0


class Listening(InstantSimulator):
    """Remembers what it was shown, by the time at which it was asked."""

    def __init__(self, clock: VirtualClock) -> None:
        self._tokenizer = load_tokenizer(EngineSettings())
        super().__init__(self._tokenizer)
        self._clock = clock
        self.shown: list[tuple[int, str]] = []

    def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        self.shown.append((self._clock.now_ms(), self._tokenizer.decode(request.input_ids)))
        return super().stream(request)


@pytest.mark.parametrize("turn", [25, 44])
async def test_a_future_that_was_planted_leaves_no_trace_before_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    past = [one for one in walk(BARS) if one.ts_close_ms <= START + turn * MINUTE]
    future = [candle(symbol, slot, 7777.77, 7777.77, 77_777.0) for symbol in SYMBOLS for slot in range(turn, BARS)]
    listening: list[Listening] = []

    def listener(clock: VirtualClock) -> Listening:
        listening.append(Listening(clock))
        return listening[-1]

    _with(monkeypatch, listener)
    # A jump of 78 times is blocked as a suspected split unless jumps are allowed, and what is blocked is not shown.
    jumps = ("fusion.max_jump=1000",)
    without = await run(plan(past, assignments=jumps), tmp_path / "past")
    planted = await run(plan([*past, *future], assignments=jumps), tmp_path / "planted")
    turned_ms = START + turn * MINUTE
    before = [text for at_ms, text in listening[1].shown if at_ms <= turned_ms]
    assert len(before) == len(listening[0].shown) > 20
    assert not any("7777" in text or "78e3" in text for text in before)
    assert any("7777" in text for at_ms, text in listening[1].shown if at_ms > turned_ms)
    assert [one for one in planted.signals if one.ts_decided_ms <= turned_ms] == without.signals
    assert [one for one in planted.audits if one.ts_done_ms <= turned_ms] == without.audits
    assert planted.outcomes[: len(without.outcomes)] == without.outcomes


async def test_positions_open_in_the_next_bar_at_its_open_with_slippage(unstopped: Ran) -> None:
    bars = walk(BARS)
    signals = {signal.signal_id: signal for signal in unstopped.signals}
    opened = [one for one in unstopped.outcomes if one.entry is not None]
    assert len(opened) > 5
    for outcome in opened:
        signal = signals[outcome.signal_id]
        following = next(one for one in bars if one.symbol == outcome.symbol and one.ts_open_ms >= signal.ts_decided_ms)
        assert outcome.ts_entry_ms == following.ts_open_ms
        side = 1 if outcome.action.value == "buy" else -1
        assert float(outcome.entry or 0) == pytest.approx(following.open * (1 + side * 1e-4), abs=1e-6)


async def test_bars_before_the_time_asked_for_are_shown_and_not_asked_about(tmp_path: Path) -> None:
    ran = await run(plan(walk(40), since_ms=START + 30 * MINUTE), tmp_path)
    assert min(audit.ts_done_ms for audit in ran.audits) >= START + 30 * MINUTE
    assert all(audit.outcome is Outcome.PUBLISHED or audit.reason in {"cool_down", "flip_flop"} for audit in ran.audits)


async def test_a_bar_waits_for_its_chart_in_virtual_time_and_a_run_can_still_be_stopped(tmp_path: Path) -> None:
    charts = {
        (symbol, START + slot * MINUTE): seen(START + slot * MINUTE, 0.9, symbol=symbol).model_copy(update={"run_mode": RunMode.REPLAY})
        for symbol in SYMBOLS
        for slot in range(10, 20)
    }
    wanted, on_step = after(30)
    assert not (await run(plan(walk(40), charts=charts), tmp_path / "parts", wanted, on_step)).ended
    parts = await run(plan(walk(40), charts=charts), tmp_path / "parts")
    whole = await run(plan(walk(40), charts=charts), tmp_path / "whole")
    assert parts.bytes() == whole.bytes()
    assert {signal.vision for signal in whole.signals} == {"fresh", "stale", "absent"}
    late = [signal for signal in whole.signals if signal.vision != "fresh"]
    waited = {(signal.as_of.market.ts_event_ms - START, signal.ts_decided_ms - signal.as_of.market.ts_ms) for signal in late}
    assert {wait_ms for event_ms, wait_ms in waited if event_ms <= 25 * MINUTE} == {150}, "charts came until minute 20"
    assert {wait_ms for event_ms, wait_ms in waited if event_ms > 25 * MINUTE} == {0}, "and bars wait for none that have stopped coming"


async def test_a_split_on_the_way_is_taken_by_books_and_judges(tmp_path: Path) -> None:
    event = split(START + 20 * MINUTE, 2.0, SYMBOLS[0]).model_copy(update={"run_mode": RunMode.REPLAY})
    halved = [
        one.model_copy(update={name: getattr(one, name) / 2 for name in ("open", "high", "low", "close")})
        if one.symbol == SYMBOLS[0] and one.ts_open_ms >= event.effective_ms
        else one
        for one in walk(40)
    ]
    ran = await run(plan(halved, splits=[event], assignments=["fusion.max_jump=1.5"]), tmp_path)
    assert "suspected_split" not in {audit.reason for audit in ran.audits}
    assert all(abs(outcome.return_net or 0) < 0.1 for outcome in ran.outcomes)
