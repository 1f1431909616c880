"""A consumer of signals that may be copied: it acts on each signal once, while it is valid, and never on one that was withdrawn.

`SignalInbox` holds the rules and is pure; `follow` reads a topic of Kafka through it. Give orders the signal's `signal_id` as client
order id, so that a broker refuses the second one when this process was killed between an order and its commit.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from aiokafka import AIOKafkaConsumer
from pydantic import ValidationError

from schemas import Action, Cancel, RunMode, Signal, decode_signal_message

_MAX_KEPT: Final = 100_000
"""Ids that are remembered: at ten signals a second nearly three hours, and a redelivered older one has expired."""
_TO_ACT_ON: Final = frozenset({Action.BUY, Action.SELL, Action.EXIT})


@dataclass(frozen=True, slots=True)
class Act:
    """Act on this signal now."""

    signal: Signal


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Withdraw what was ordered on this signal and has not been filled."""

    signal: Signal
    reason: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """Do nothing; `why` says for which reason."""

    why: Literal["malformed", "other_mode", "duplicate", "cancelled", "expired", "nothing_to_do", "unknown"]


Step = Act | Withdraw | Ignored


class SignalInbox:
    """Decides what to do about each record of `strategy-signals`."""

    def __init__(self, acted_on: Iterable[UUID] = (), run_mode: RunMode = RunMode.LIVE) -> None:
        """Take the ids of orders that are known already, from before a restart; of messages only those of `run_mode` count."""
        self._run_mode = run_mode
        self._seen: OrderedDict[UUID, Signal | None] = OrderedDict.fromkeys(acted_on)
        """Every id that has come, with its signal where it was acted on."""
        self._cancelled: OrderedDict[UUID, None] = OrderedDict()

    def take(self, value: bytes | None, now_ms: int) -> Step:
        """Return what to do about a record, at a time in milliseconds since 1970."""
        try:
            message = decode_signal_message(value or b"")
        except ValidationError:
            return Ignored("malformed")
        if message.run_mode is not self._run_mode:
            return Ignored("other_mode")
        return self._cancel(message) if isinstance(message, Cancel) else self._signal(message, now_ms)

    def _signal(self, signal: Signal, now_ms: int) -> Step:
        if signal.signal_id in self._seen:
            return Ignored("duplicate")  # the first body of an id counts
        self._remember(signal.signal_id, None)
        if signal.signal_id in self._cancelled:
            return Ignored("cancelled")
        if signal.action not in _TO_ACT_ON:
            return Ignored("nothing_to_do")
        if now_ms > signal.valid_until_ms:
            return Ignored("expired")
        self._seen[signal.signal_id] = signal
        return Act(signal)

    def _cancel(self, cancel: Cancel) -> Step:
        known = cancel.signal_id in self._cancelled
        self._cancelled[cancel.signal_id] = None
        if len(self._cancelled) > _MAX_KEPT:
            self._cancelled.popitem(last=False)
        signal = self._seen.get(cancel.signal_id)
        if signal is None:
            return Ignored("duplicate" if known else "unknown")
        self._seen[cancel.signal_id] = None
        return Withdraw(signal, cancel.reason.value)

    def _remember(self, signal_id: UUID, signal: Signal | None) -> None:
        self._seen[signal_id] = signal
        if len(self._seen) > _MAX_KEPT:
            self._seen.popitem(last=False)


async def follow(bootstrap: str, topic: str, group: str, inbox: SignalInbox) -> AsyncGenerator[Act | Withdraw, None]:
    """Yield what to do about the records of a topic, for ever; a record is committed when the next one is asked for.

    A step that raises is therefore read again after a restart, and ends `duplicate` or `expired` where it was done.
    """
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        async for record in consumer:
            step = inbox.take(record.value, time.time_ns() // 1_000_000)
            if not isinstance(step, Ignored):
                yield step
            await consumer.commit()
    finally:
        await consumer.stop()
