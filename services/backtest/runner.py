"""Runs a backtest: loads the history, then plays, judges and writes one instant after the other until the data end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from schemas import AuditRecord, Cancel, Signal, SignalOutcome, decode_signal_message
from services.backtest.backtest_plan import BacktestPlan, worker_dependencies
from services.backtest.checkpoint import AUDIT, OUTCOMES, SIGNALS, RunFolder
from services.backtest.feed import Step
from services.backtest.signal_judges import SignalJudges
from services.backtest.virtual_worker import AUDIT_TOPIC, SIGNALS_TOPIC, VirtualWorker
from services.core.bus import Record
from services.core.clock import VirtualClock
from services.core.errors import ServiceError
from services.core.exported_log import Header, header_line, record_line
from services.inference.engine import Engine, EngineError
from services.scoring.report import ReportBar

_CHECKPOINT_S: Final = 5.0
_AFTER_MS: Final = 60_000
"""How far the clock advances after the last bar, so that triggers that wait for vision features are decided."""


_ENGINE_DOWN: Final = frozenset({"engine_unreachable", "engine_broke", "engine_open", "engine_overloaded"})


class EngineDownError(ServiceError):
    """The engine does not answer. The run can be resumed once it does."""


class BacktestRunner:
    """One process of a run, from its checkpoint on. Call `run` once."""

    def __init__(
        self,
        plan: BacktestPlan,
        folder: RunFolder,
        on_step: Callable[[Step], None],
        wanted: Callable[[], bool],
        *,
        engine: Callable[[VirtualClock], Engine] | None = None,
    ) -> None:
        """Play `plan` into `folder` while `wanted()` is true; `on_step` is called with each step, those loaded included.

        `engine` replaces the plan's engine by one that lives in this process.
        """
        self._plan = plan
        self._folder = folder
        self._on_step = on_step
        self._wanted = wanted
        self._engine = engine
        self.judges = SignalJudges(plan.settings, plan.feed.instruments, plan.feed.restatements)
        self.bars: dict[str, list[ReportBar]] = {}
        """Closed bars of the intervals that trigger, by symbol: the prices for the report's baselines."""
        self._loading = True

    async def run(self) -> bool:
        """Play until the data end or `wanted()` is false; return whether the data ended.

        Raises EngineDownError when the engine does not answer; the run then continues from its last checkpoint.
        """
        if self._folder.checkpoint.done:
            return self._collect_bars()
        steps = self._plan.feed.steps()
        first = next(steps, None)
        if first is None:
            return True
        desk = VirtualWorker(first.at_ms)
        try:
            await desk.open(self._plan.feed.instruments, self._plan.feed.restatements)
            if self._folder.checkpoint.judges is None:
                self._folder.write_log([header_line(Header(self._plan.settings, whole=True))])
            ahead = await self._load(desk, first, steps)
            around = worker_dependencies(self._plan.settings, self._plan.options.engine, desk.clock, desk.bus)
            if self._engine is not None:
                around = replace(around, engine=self._engine(desk.clock))
            await desk.start(around)
            await self._store_engine(around.engine)
            return await self._play(desk, ahead, steps)
        finally:
            await desk.close()

    async def _load(self, desk: VirtualWorker, first: Step | None, steps: Iterator[Step]) -> Step | None:
        """Load the history, and what an earlier process played; return the next step."""
        checkpoint = self._folder.checkpoint
        if checkpoint.judges is not None:
            self.judges.load(checkpoint.judges)
        published = _Published(self._folder)
        step, played = first, 0
        while step is not None:
            if not step.history and played == checkpoint.steps:
                break
            await published.load_until(desk, step.at_ms)
            await desk.load(step)
            self._log(desk)
            self._step_done(step)
            if not step.history:
                played += 1
            elif checkpoint.judges is None:
                self.judges.bars(step.closed)
            step = next(steps, None)
        await published.load_until(desk, None)
        self._loading = False
        return step

    async def _play(self, desk: VirtualWorker, ahead: Step | None, steps: Iterator[Step]) -> bool:
        saved_s = time.monotonic()
        last_ms = desk.clock.now_ms()
        step = ahead
        while step is not None:
            if not desk.at_rest:
                self._record(await desk.reach(step.at_ms), [])
            if desk.at_rest and (not self._wanted() or time.monotonic() - saved_s > _CHECKPOINT_S):
                self._save()
                saved_s = time.monotonic()
                if not self._wanted():
                    return False
            outcomes = self.judges.bars(step.closed)
            self._record(await desk.play(step), outcomes)
            self._log(desk)
            self._folder.checkpoint.steps += 1
            self._step_done(step)
            last_ms = step.at_ms
            step = next(steps, None)
        self._record(await desk.reach(last_ms + _AFTER_MS), [])
        self._folder.checkpoint.done = True
        self._save()
        return True

    def _collect_bars(self) -> bool:
        """Collect the bars for a report on a run that has ended."""
        self.judges.load(self._folder.checkpoint.judges or {})
        for step in self._plan.feed.steps():
            self._step_done(step)
        return True

    async def _store_engine(self, engine: Engine) -> None:
        """Store the engine's name and model in the checkpoint."""
        try:
            info = await engine.info()
        except EngineError as error:
            raise EngineDownError(f"the engine {engine.name} does not answer: {error.detail}") from error
        self._folder.checkpoint.engine = f"{info.name}: {info.model} ({info.source})"

    def _log(self, desk: VirtualWorker) -> None:
        """Write what was appended to the log, unless an earlier process has written it."""
        if not self._loading or self._folder.checkpoint.judges is None:
            self._folder.write_log(record_line(record) for record in desk.appended)
        desk.appended.clear()

    def _step_done(self, step: Step) -> None:
        triggering = self._plan.settings.fusion.trigger_interval_set
        for bar in step.closed:
            if bar.interval in triggering:
                self.bars.setdefault(bar.symbol, []).append(ReportBar.of(bar))
        self._on_step(step)

    def _record(self, records: Sequence[Record], outcomes: list[SignalOutcome]) -> None:
        """Judge and write the results of an instant, in an order that does not depend on which call ended first."""
        messages = sorted((decode_signal_message(one.value or b"") for one in records if one.topic == SIGNALS_TOPIC), key=_place)
        audits = sorted((AuditRecord.decode(one.value or b"") for one in records if one.topic == AUDIT_TOPIC), key=_audit_place)
        for message in messages:
            outcomes += self.judges.message(message)
        counts = self._folder.checkpoint.outcomes
        for audit in audits:
            if audit.reason in _ENGINE_DOWN:
                # An outage is no result of the strategy: a live worker would have continued without these signals.
                why = f"{audit.reason}: {audit.detail}"
                raise EngineDownError(f"the engine does not answer ({why}); continue later with --resume --folder {self._folder.path}")
            ended = audit.outcome.value if audit.reason is None else f"{audit.outcome.value} ({audit.reason})"
            counts[ended] = counts.get(ended, 0) + 1
        self._folder.write(SIGNALS, (message.encode() for message in messages))
        self._folder.write(AUDIT, (audit.encode() for audit in audits))
        self._folder.write(OUTCOMES, (outcome.encode() for outcome in outcomes))

    def _save(self) -> None:
        self._folder.checkpoint.judges = self.judges.dump()
        self._folder.save()


class _Published:
    """Signals that earlier processes published, loaded again between the records that they were published between."""

    def __init__(self, folder: RunFolder) -> None:
        self._lines = folder.lines(SIGNALS)
        self._ahead = next(self._lines, None)

    async def load_until(self, desk: VirtualWorker, before_ms: int | None) -> None:
        """Load the signals published before a time; all remaining ones when None."""
        while self._ahead is not None:
            message = decode_signal_message(self._ahead)
            if before_ms is not None and message.ts_decided_ms >= before_ms:
                return
            await desk.load_signal(message.ts_decided_ms, message.symbol.encode(), self._ahead)
            self._ahead = next(self._lines, None)


def _place(message: Signal | Cancel) -> tuple[int, str, str, str, bool, UUID]:
    cancels = isinstance(message, Cancel)
    return message.ts_decided_ms, message.symbol, message.interval, message.mode, cancels, message.signal_id


def _audit_place(audit: AuditRecord) -> tuple[int, str, str, str, int, str]:
    return audit.ts_done_ms, audit.symbol, audit.interval, audit.mode, audit.trigger.offset, audit.trigger_kind
