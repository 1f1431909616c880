"""The course of a run: what was before is loaded, then instant after instant is played, judged and written, until the data end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final
from uuid import UUID

from schemas import AuditRecord, Cancel, Signal, SignalOutcome, decode_signal_message
from services.backtest.checkpoint import AUDIT, OUTCOMES, SIGNALS, RunFolder
from services.backtest.feed import Step
from services.backtest.plan import BacktestPlan, worker_dependencies
from services.backtest.signal_judges import SignalJudges
from services.backtest.virtual_worker import AUDIT_TOPIC, SIGNALS_TOPIC, VirtualWorker
from services.core.bus import Record
from services.core.errors import ServiceError
from services.core.exported_log import Header, header_line, record_line
from services.inference.engine import Engine, EngineError
from services.scoring.report import ReportBar

_CHECKPOINT_S: Final = 5.0
_AFTER_MS: Final = 60_000
"""How far the clock goes on after the last bar, so that what waits for a chart is asked."""


_GONE: Final = frozenset({"engine_unreachable", "engine_broke", "engine_open", "engine_overloaded"})


class EngineGoneError(ServiceError):
    """The engine does not answer; the run can be resumed when it does."""


class BacktestRunner:
    """One life of a run. `run` it once."""

    def __init__(self, plan: BacktestPlan, folder: RunFolder, on_step: Callable[[Step], None], wanted: Callable[[], bool]) -> None:
        """Play `plan` into `folder` while `wanted()`; `on_step` is told of each step, those loaded included."""
        self._plan = plan
        self._folder = folder
        self._on_step = on_step
        self._wanted = wanted
        self.judges = SignalJudges(plan.settings.scoring, plan.feed.instruments, plan.feed.splits)
        self.bars: dict[str, list[ReportBar]] = {}
        """Closed bars of the intervals that trigger, by symbol: what a report holds the signals against."""
        self._loading = True

    async def run(self) -> bool:
        """Play until the data end or the run is no longer wanted; return whether they ended.

        Raises EngineGoneError when the engine does not answer: the run stands at its last checkpoint then.
        """
        if self._folder.checkpoint.done:
            return self._look_back()
        steps = self._plan.feed.steps()
        first = next(steps, None)
        if first is None:
            return True
        desk = VirtualWorker(first.at_ms)
        try:
            await desk.open(self._plan.feed.instruments, self._plan.feed.splits)
            if self._folder.checkpoint.judges is None:
                self._folder.write_log([header_line(Header(self._plan.settings, whole=True))])
            ahead = await self._load(desk, first, steps)
            around = worker_dependencies(self._plan.settings, self._plan.options.engine, desk.clock, desk.bus)
            await desk.start(around)
            await self._name(around.engine)
            return await self._play(desk, ahead, steps)
        finally:
            await desk.close()

    async def _load(self, desk: VirtualWorker, first: Step | None, steps: Iterator[Step]) -> Step | None:
        """Load what lies before the time asked for, and what was played before; return the step after that."""
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
            self._seen(step)
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
                self._take(await desk.reach(step.at_ms), [])
            if desk.at_rest and (not self._wanted() or time.monotonic() - saved_s > _CHECKPOINT_S):
                self._save()
                saved_s = time.monotonic()
                if not self._wanted():
                    return False
            outcomes = self.judges.bars(step.closed)
            self._take(await desk.play(step), outcomes)
            self._log(desk)
            self._folder.checkpoint.steps += 1
            self._seen(step)
            last_ms = step.at_ms
            step = next(steps, None)
        self._take(await desk.reach(last_ms + _AFTER_MS), [])
        self._folder.checkpoint.done = True
        self._save()
        return True

    def _look_back(self) -> bool:
        """Gather what a report on a run that has ended already needs."""
        self.judges.load(self._folder.checkpoint.judges or {})
        for step in self._plan.feed.steps():
            self._seen(step)
        return True

    async def _name(self, engine: Engine) -> None:
        """Note what answers."""
        try:
            info = await engine.info()
        except EngineError as error:
            raise EngineGoneError(f"the engine {engine.name} does not answer: {error.detail}") from error
        self._folder.checkpoint.engine = f"{info.name}: {info.model} ({info.source})"

    def _log(self, desk: VirtualWorker) -> None:
        """Write what was appended, unless an earlier life has."""
        if not self._loading or self._folder.checkpoint.judges is None:
            self._folder.write_log(record_line(record) for record in desk.appended)
        desk.appended.clear()

    def _seen(self, step: Step) -> None:
        triggering = self._plan.settings.fusion.trigger_interval_set
        for bar in step.closed:
            if bar.interval in triggering:
                self.bars.setdefault(bar.symbol, []).append(ReportBar(bar.symbol, bar.interval, bar.ts_close_ms, bar.close))
        self._on_step(step)

    def _take(self, records: Sequence[Record], outcomes: list[SignalOutcome]) -> None:
        """Judge and write what came of an instant, in an order that does not depend on which call ended first."""
        messages = sorted((decode_signal_message(one.value or b"") for one in records if one.topic == SIGNALS_TOPIC), key=_place)
        audits = sorted((AuditRecord.decode(one.value or b"") for one in records if one.topic == AUDIT_TOPIC), key=_audit_place)
        for message in messages:
            outcomes += self.judges.message(message)
        counts = self._folder.checkpoint.outcomes
        for audit in audits:
            if audit.reason in _GONE:
                # Its silence is no outcome of the strategy; a live worker would have gone on without these signals.
                why = f"{audit.reason}: {audit.detail}"
                raise EngineGoneError(f"the engine does not answer ({why}); when it does, go on with --resume --folder {self._folder.path}")
            ended = audit.outcome.value if audit.reason is None else f"{audit.outcome.value} ({audit.reason})"
            counts[ended] = counts.get(ended, 0) + 1
        self._folder.write(SIGNALS, (message.encode() for message in messages))
        self._folder.write(AUDIT, (audit.encode() for audit in audits))
        self._folder.write(OUTCOMES, (outcome.encode() for outcome in outcomes))

    def _save(self) -> None:
        self._folder.checkpoint.judges = self.judges.dump()
        self._folder.save()


class _Published:
    """What earlier lives published, to be loaded again among the records that it was published between."""

    def __init__(self, folder: RunFolder) -> None:
        self._lines = folder.lines(SIGNALS)
        self._ahead = next(self._lines, None)

    async def load_until(self, desk: VirtualWorker, before_ms: int | None) -> None:
        """Load what was published before a time; all that is left when None."""
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
