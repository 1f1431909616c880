"""Writes cancels of signals, in the background: each is tried until the broker acknowledges it, however late."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

import structlog

from schemas import Cancel, CancelReason, RunMode, Signal, Topic, topic_name
from services.core import metrics
from services.core.bus import BusError, Producer
from services.core.clock import Clock

_RETRY_MS: Final = 500

_log = structlog.get_logger()


class Cancels:
    """The cancels that are on their way."""

    def __init__(self, producer: Producer, clock: Clock, run_mode: RunMode) -> None:
        """Write to the topic of signals in `run_mode`."""
        self._producer = producer
        self._clock = clock
        self._run_mode = run_mode
        self._topic = topic_name(Topic.STRATEGY_SIGNALS, run_mode)
        self._writing: set[asyncio.Task[None]] = set()

    def send(self, signal: Signal, reason: CancelReason, detail: str) -> None:
        """Cancel one signal."""
        message = Cancel(
            schema_version=1,
            run_mode=self._run_mode,
            symbol=signal.symbol,
            interval=signal.interval,
            mode=signal.mode,
            signal_id=signal.signal_id,
            ts_decided_ms=self._clock.now_ms(),
            reason=reason,
            detail=detail[:500],
        )
        partition = signal.as_of.market.partition
        task = asyncio.create_task(self._until_acknowledged(message, partition), name=f"cancel-{signal.signal_id}")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        metrics.CANCELS.labels(reason.value).inc()
        _log.info("cancel", signal_id=str(signal.signal_id), symbol=signal.symbol, reason=reason.value)

    @property
    def writing(self) -> Collection[asyncio.Task[None]]:
        """Return the cancels that are not acknowledged yet."""
        return self._writing

    async def written(self, timeout_ms: int) -> None:
        """Return once every cancel so far is acknowledged, or the time is up."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=timeout_ms / 1000)

    async def stop(self) -> None:
        """Give up the cancels that the broker has not taken."""
        for task in list(self._writing):
            task.cancel()
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def _until_acknowledged(self, message: Cancel, partition: int) -> None:
        while True:
            try:
                key, value = message.symbol.encode(), message.encode()
                await (await self._producer.send(self._topic, key=key, value=value, partition=partition))
            except BusError as error:
                _log.warning("cancel_failed", signal_id=str(message.signal_id), error=str(error))
                await self._clock.sleep_until(self._clock.now_ms() + _RETRY_MS)
            else:
                return
