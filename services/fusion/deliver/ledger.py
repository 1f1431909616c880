"""The ledger of unfinished work: which record holds which trigger, and the audit record that finishes it.

A trigger leaves the ledger only when the broker has acknowledged its outcome, so that a commit never passes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog
from pydantic import ValidationError

from schemas import AuditRecord, Outcome, RunMode
from services.core import metrics
from services.core.bus import BusError, Record
from services.core.clock import Clock
from services.core.decode import Refused
from services.fusion.decide.ending import Ending
from services.fusion.deliver.accounts import Accounts
from services.fusion.deliver.overdue import Overdue
from services.fusion.deliver.publisher import Publisher
from services.fusion.deliver.watermark import PartitionWatermark
from services.fusion.observe.spans import TriggerSpans, TriggerTrace
from services.fusion.prompt.version import PROMPT_VERSION
from services.fusion.state.triggers import Trigger

_RETRY_MS: Final = 500

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Work:
    """A trigger with what it holds."""

    trigger: Trigger
    watermark: PartitionWatermark
    trace: TriggerTrace


class Ledger:
    """Keeps work from a record's arrival until its outcome is acknowledged."""

    def __init__(
        self,
        publisher: Publisher,
        accounts: Accounts,
        overdue: Overdue,
        spans: TriggerSpans,
        clock: Clock,
        *,
        run_mode: RunMode,
        config_version: str,
    ) -> None:
        """Write outcomes through `publisher`; `overdue` is told of each trigger until its outcome is acknowledged."""
        self._publisher = publisher
        self._accounts = accounts
        self._spans = spans
        self._clock = clock
        self._run_mode = run_mode
        self._config_version = config_version
        self._overdue = overdue
        self._work: dict[UUID, Work] = {}
        self._writing: dict[asyncio.Task[None], int] = {}
        """Writes under way, with the input partition that each belongs to."""

    def open(self, trigger: Trigger, watermark: PartitionWatermark, record: Record) -> None:
        """Note a trigger: its record is unfinished from now on."""
        watermark.hold(record.offset)
        self._work[trigger.trigger_id] = Work(trigger, watermark, self._spans.begin(record))
        self._overdue.open(trigger)
        self._accounts.triggers += 1
        metrics.TRIGGERS.labels(trigger.kind).inc()

    @property
    def writing(self) -> Collection[asyncio.Task[None]]:
        """Return the outcomes and dead letters that wait for their acknowledgement."""
        return self._writing.keys()

    def trace(self, trigger: Trigger) -> TriggerTrace:
        """Return the trace that a trigger belongs to."""
        work = self._work.get(trigger.trigger_id)
        return work.trace if work else TriggerTrace()

    def conclude(self, trigger: Trigger, ending: Ending) -> None:
        """End a trigger: its audit record goes out, and its record is finished once that is acknowledged."""
        work = self._work.pop(trigger.trigger_id, None)
        if work is None:
            return  # its partition went elsewhere: whoever owns it now makes the trigger again
        self._accounts.outcomes[ending.outcome.value] += 1
        metrics.OUTCOMES.labels(ending.outcome.value, ending.reason or "none").inc()
        try:
            record = self._audit_record(trigger, ending)
        except ValidationError as error:
            # An engine may say of itself what the contract has no room for; the outcome is told all the same.
            _log.error("audit_record_cut_short", problem=error.errors()[0]["msg"], trigger_id=str(trigger.trigger_id))
            record = self._audit_record(trigger, Ending(ending.outcome, ending.reason, as_of=ending.as_of, signal=ending.signal))
        _log.info(
            "trigger",
            symbol=trigger.lane.symbol,
            interval=trigger.lane.interval,
            mode=trigger.lane.mode,
            kind=trigger.kind,
            outcome=ending.outcome.value,
            reason=ending.reason,
            action=record.action.value if record.action else None,
            vision=ending.vision,
            prompt_tokens=record.prompt_tokens,
            cached_tokens=record.cached_tokens,
            trigger_id=str(trigger.trigger_id),
            ms=ending.stages_ms,
            **({} if work.trace.trace_id is None else {"trace_id": work.trace.trace_id}),
        )

        async def attempt() -> None:
            await self._publisher.audit(record, work.trace.outputs)
            self._overdue.close(trigger)

        self._write(work.watermark, trigger.origin.offset, attempt)
        self._spans.end(trigger, work.trace, ending, record.ts_done_ms)

    def send_dead_letter(self, record: Record, refused: Refused, watermark: PartitionWatermark) -> None:
        """Dead-letter a record; it is finished once that is acknowledged."""
        watermark.hold(record.offset)
        self._write(watermark, record.offset, lambda: self._publisher.dead_letter(record, refused))

    def abandon(self, trigger: Trigger) -> None:
        """Forget a trigger whose partition went elsewhere; it gets its outcome there."""
        self._work.pop(trigger.trigger_id, None)
        self._overdue.close(trigger)

    async def written(self, partitions: frozenset[int], timeout_ms: int) -> None:
        """Return once everything concluded so far for these input partitions is acknowledged, or the time is up."""
        tasks = [task for task, partition in self._writing.items() if partition in partitions]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_ms / 1000)

    async def close(self) -> None:
        """Give up what is still being written: it was not committed, and is done again."""
        for task in list(self._writing):
            task.cancel()
        await asyncio.gather(*self._writing, return_exceptions=True)

    def _write(self, watermark: PartitionWatermark, offset: int, attempt: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(self._until_acknowledged(watermark, offset, attempt), name=f"write-{offset}")
        self._writing[task] = watermark.partition.partition
        task.add_done_callback(lambda done: self._writing.pop(done, None))

    async def _until_acknowledged(self, watermark: PartitionWatermark, offset: int, attempt: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await attempt()
                break
            except BusError as error:
                _log.warning("write_failed", error=str(error), offset=offset)
                await self._clock.sleep_until(self._clock.now_ms() + _RETRY_MS)
        watermark.release(offset)

    def _audit_record(self, trigger: Trigger, ending: Ending) -> AuditRecord:
        prompt, usage, signal = ending.prompt, ending.usage, ending.signal
        published = ending.outcome is Outcome.PUBLISHED
        return AuditRecord(
            schema_version=1,
            run_mode=self._run_mode,
            trigger_id=trigger.trigger_id,
            trigger_kind=trigger.kind,
            trigger=trigger.origin,
            symbol=trigger.lane.symbol,
            interval=trigger.lane.interval,
            mode=trigger.lane.mode,
            outcome=ending.outcome,
            reason=ending.reason,
            detail=ending.detail.encode(errors="replace").decode()[:2000],
            ts_done_ms=self._clock.now_ms(),
            deadline_ms=ending.deadline_ms,
            signal_id=signal.signal_id if signal is not None and published else None,
            action=signal.action if signal is not None else None,
            as_of=ending.as_of,
            control_offset=ending.control_offset,
            config_version=self._config_version,
            prompt_version=PROMPT_VERSION if prompt else None,
            prompt_hash=prompt.hash if prompt else None,
            epoch=prompt.epoch if prompt else None,
            prompt_tokens=len(prompt.ids) if prompt else None,
            cached_tokens=ending.cached_tokens,
            output_tokens=usage.output_tokens if usage else None,
            accept_length=usage.accept_length if usage else None,
            vision=ending.vision,
            source=ending.engine.source if ending.engine else None,
            engine=ending.engine.name if ending.engine else None,
            model=ending.engine.model if ending.engine else None,
            latency_ms=ending.stages_ms,
            answer=ending.answer[:65_536] if ending.answer is not None else None,
        )
