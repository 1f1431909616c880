"""The ledger of open triggers: which record each holds, how long past its deadline it is, and the audit record that finishes it.

A record stays unfinished until the broker has acknowledged the outcome of its triggers, so that a commit never passes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog
from pydantic import ValidationError

from schemas import MAX_ANSWER_CHARACTERS, AuditRecord, Outcome
from services.core import metrics
from services.core.bus import BusError, Record
from services.core.clock import Clock
from services.core.decode import Refused
from services.core.fusion_settings import FusionSettings
from services.core.settings import Settings
from services.fusion.deliver.accounts import Accounts
from services.fusion.deliver.publisher import Publisher
from services.fusion.deliver.watermark import PartitionWatermark
from services.fusion.observe.result import TriggerResult, coalesced
from services.fusion.observe.spans import TriggerSpans, TriggerTrace
from services.fusion.state.triggers import Trigger

_RETRY_MS: Final = 500

_log = structlog.get_logger()


class Deadlines:
    """When each open trigger should have had its outcome. Pure: time is handed in."""

    def __init__(self, settings: FusionSettings) -> None:
        """Take what makes a deadline from `settings`; that a session's close may bring it forward is left out."""
        self._settings = settings
        self._deadlines_ms: dict[UUID, int] = {}

    def open(self, trigger: Trigger) -> None:
        """Note a trigger that has no acknowledged outcome yet."""
        valid_until_ms = trigger.origin.ts_ms + self._settings.entry_validity(trigger.lane.interval)
        self._deadlines_ms[trigger.trigger_id] = valid_until_ms - self._settings.delivery_reserve_ms

    def close(self, trigger: Trigger) -> None:
        """Forget a trigger: its outcome is acknowledged, or its partition is another worker's."""
        self._deadlines_ms.pop(trigger.trigger_id, None)

    def longest_overdue_ms(self, now_ms: int) -> int:
        """Return how long the most overdue trigger has been past its deadline, 0 when none is."""
        return max(0, now_ms - min(self._deadlines_ms.values(), default=now_ms))


@dataclass(frozen=True, slots=True)
class _OpenTrigger:
    watermark: PartitionWatermark
    trace: TriggerTrace


class Ledger:
    """Keeps each trigger from its record's arrival until its outcome is acknowledged."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        publisher: Publisher,
        accounts: Accounts,
        spans: TriggerSpans,
        *,
        config_version: str,
    ) -> None:
        """Write outcomes through `publisher`; audit records name `config_version`."""
        self._publisher = publisher
        self._accounts = accounts
        self._spans = spans
        self._clock = clock
        self._run_mode = settings.run_mode
        self._config_version = config_version
        self._deadlines = Deadlines(settings.fusion)
        self._open: dict[UUID, _OpenTrigger] = {}
        self._writing: dict[asyncio.Task[None], int] = {}
        """Writes under way, with the input partition that each belongs to."""

    def open(self, trigger: Trigger, watermark: PartitionWatermark, record: Record) -> None:
        """Open a trigger: its record is unfinished from now on."""
        watermark.hold(record.offset)
        self._open[trigger.trigger_id] = _OpenTrigger(watermark, self._spans.begin(record))
        self._deadlines.open(trigger)
        self._accounts.triggers += 1
        metrics.TRIGGERS.labels(trigger.kind).inc()

    @property
    def writing(self) -> Collection[asyncio.Task[None]]:
        """Return the outcomes and dead letters that wait for their acknowledgement."""
        return self._writing.keys()

    def trace(self, trigger: Trigger) -> TriggerTrace:
        """Return the trace that a trigger belongs to."""
        held = self._open.get(trigger.trigger_id)
        return held.trace if held else TriggerTrace()

    def close(self, trigger: Trigger, result: TriggerResult) -> None:
        """Close a trigger with its result: its audit record is written, and its record finished once that is acknowledged."""
        held = self._open.pop(trigger.trigger_id, None)
        if held is None:
            return  # its partition went elsewhere: whoever owns it now makes the trigger again
        self._accounts.outcomes[result.outcome.value] += 1
        metrics.OUTCOMES.labels(result.outcome.value, result.reason or "none").inc()
        try:
            record = self._audit_record(trigger, result)
        except ValidationError as error:
            # An engine may describe itself in ways that the contract does not allow; the outcome is audited all the same.
            _log.error("audit_record_shortened", problem=error.errors()[0]["msg"], trigger_id=str(trigger.trigger_id))
            record = self._audit_record(trigger, TriggerResult(result.outcome, result.reason, as_of=result.as_of, signal=result.signal))
        _log.info(
            "trigger",
            symbol=trigger.lane.symbol,
            interval=trigger.lane.interval,
            mode=trigger.lane.mode,
            kind=trigger.kind,
            outcome=result.outcome.value,
            reason=result.reason,
            action=record.action.value if record.action else None,
            vision=result.vision,
            prompt_tokens=record.prompt_tokens,
            cached_tokens=record.cached_tokens,
            trigger_id=str(trigger.trigger_id),
            ms=result.stages_ms,
            **({} if held.trace.trace_id is None else {"trace_id": held.trace.trace_id}),
        )

        async def attempt() -> None:
            await self._publisher.audit(record, held.trace.outputs)
            self._deadlines.close(trigger)

        self._write(held.watermark, trigger.origin.offset, attempt)
        self._spans.end(trigger, held.trace, result, record.ts_done_ms)

    def dead_letter(self, record: Record, refused: Refused, watermark: PartitionWatermark) -> None:
        """Dead-letter a record; it is finished once that is acknowledged."""
        watermark.hold(record.offset)
        self._write(watermark, record.offset, lambda: self._publisher.dead_letter(record, refused))

    def abandon(self, trigger: Trigger) -> None:
        """Forget a trigger whose partition is another worker's: it gets its outcome there."""
        self._open.pop(trigger.trigger_id, None)
        self._deadlines.close(trigger)

    def update_gauges(self) -> None:
        """Show how long the most overdue trigger has been past its deadline."""
        metrics.TRIGGER_OVERDUE_SECONDS.set(self._deadlines.longest_overdue_ms(self._clock.now_ms()) / 1000)

    async def written(self, partitions: frozenset[int], timeout_ms: int) -> None:
        """Return once every outcome so far of these input partitions is acknowledged, or the time is up."""
        tasks = [task for task, partition in self._writing.items() if partition in partitions]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_ms / 1000)

    async def stop(self) -> None:
        """Cancel what is still being written: it was not committed, and is done again."""
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

    def _audit_record(self, trigger: Trigger, result: TriggerResult) -> AuditRecord:
        prompt, usage, signal = result.prompt, result.usage, result.signal
        published = result.outcome is Outcome.PUBLISHED
        return AuditRecord(
            schema_version=1,
            run_mode=self._run_mode,
            trigger_id=trigger.trigger_id,
            trigger_kind=trigger.kind,
            trigger=trigger.origin,
            symbol=trigger.lane.symbol,
            interval=trigger.lane.interval,
            mode=trigger.lane.mode,
            outcome=result.outcome,
            reason=result.reason,
            detail=result.detail.encode(errors="replace").decode()[:2000],
            ts_done_ms=self._clock.now_ms(),
            deadline_ms=result.deadline_ms,
            signal_id=signal.signal_id if signal is not None and published else None,
            action=signal.action if signal is not None else None,
            as_of=result.as_of,
            control_offset=result.control_offset,
            config_version=self._config_version,
            prompt_version=prompt.version if prompt else None,
            prompt_hash=prompt.hash if prompt else None,
            epoch=prompt.epoch if prompt else None,
            prompt_tokens=len(prompt.ids) if prompt else None,
            cached_tokens=result.cached_tokens,
            output_tokens=usage.output_tokens if usage else None,
            accept_length=usage.accept_length if usage else None,
            vision=result.vision,
            source=result.engine.source if result.engine else None,
            engine=result.engine.name if result.engine else None,
            model=result.engine.model if result.engine else None,
            latency_ms=result.stages_ms,
            thought_tokens=result.thought_tokens,
            thought_cut=result.thought_cut,
            answer=result.answer[:MAX_ANSWER_CHARACTERS] if result.answer is not None else None,
            answer_chunks=coalesced(result.answer_chunks),
        )
