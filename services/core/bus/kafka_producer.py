"""The Kafka producer: accepts records without waiting, keeps their order, and sends none after its delivery timeout.

aiokafka's idempotent producer never expires a record: it retries until it succeeds, however old the record is, and once a batch
is lost its sequence numbers have a gap that kills the producer. So each record has a deadline here. When a record passes it
unacknowledged, or the broker refuses one, the inner producer is disconnected with everything that it holds, and replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, NodeNotReadyError
from aiokafka.protocol.produce import ProduceRequest

from services.core.bus.error_text import closed
from services.core.bus.kafka_client import TopicLookup
from services.core.bus.kafka_errors import as_bus_error, bus_error
from services.core.bus.port import BusError, Headers, Position
from services.core.clock import Clock

MAX_QUEUED: Final = 10_000
"""Queued records above which `send` makes its caller wait."""
_RETRY_S: Final = 0.1
_OFFER_TIMEOUT_S: Final = 2.0
"""An inner producer accepts a record at once unless its buffer is full; a disconnected one may never answer."""
_STOP_S: Final = 5.0

_NULL_VALUE: Final = object()
"""Replaces a null value until aiokafka has asserted that key and value are not both null, which Kafka allows."""

_log = structlog.get_logger()


def null_serializer(value: Any) -> bytes | None:
    """Return what goes on the wire: the `value_serializer` of every inner producer."""
    sent: bytes | None = None if value is _NULL_VALUE else value
    return sent


@dataclass(slots=True, eq=False)
class _PendingRecord:
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int
    partition: int | None
    deadline: float
    acknowledgement: asyncio.Future[Position]
    inner: AIOKafkaProducer | None = None

    def fail(self, error: BusError) -> None:
        if not self.acknowledgement.done():
            self.acknowledgement.set_exception(error)


class KafkaProducer:
    """See `Producer` for what each method promises."""

    def __init__(
        self,
        make: Callable[[], AIOKafkaProducer],
        clock: Clock,
        client_id: str,
        delivery_timeout_ms: int,
        before_write: Callable[[], None] = lambda: None,
    ) -> None:
        """Make a producer; `make` returns inner ones, not started; `clock` stamps records on topics with CreateTime."""
        self._before_write = before_write
        self._make = make
        self._clock = clock
        self._client_id = client_id
        self._timeout_ms = delivery_timeout_ms
        self._inner: AIOKafkaProducer | None = None
        self._lookup: TopicLookup | None = None
        self._queue: deque[_PendingRecord] = deque()
        self._waiting: deque[_PendingRecord] = deque()
        """Everything not yet seen to be acknowledged, in order of deadlines."""
        self._queued = asyncio.Event()
        self._room = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._pump: asyncio.Task[None] | None = None
        self._closings: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> None:
        """Connect; raise BusError when the broker cannot be reached."""
        with as_bus_error(f"starting producer {self._client_id!r}"):
            await self._connect()
        self._pump = asyncio.get_running_loop().create_task(self._run(), name=f"producer {self._client_id}")

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> Awaitable[Position]:
        """Hand a record over and return its acknowledgement; waits only while `MAX_QUEUED` records do."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_ms / 1000
        while len(self._queue) >= MAX_QUEUED:
            self._room.clear()
            await self._room.wait()
        if self._closed:
            raise BusError(closed("producer", self._client_id))
        self._before_write()
        at_ms = self._clock.now_ms() if timestamp_ms is None else timestamp_ms
        pending = _PendingRecord(topic, key, value, headers, at_ms, partition, deadline, loop.create_future())
        self._queue.append(pending)
        self._waiting.append(pending)
        self._queued.set()
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._expire)
        return pending.acknowledgement

    async def flush(self) -> None:
        """Return once everything handed over is acknowledged or has failed."""
        if waiting := [pending.acknowledgement for pending in self._waiting if not pending.acknowledgement.done()]:
            await asyncio.wait(waiting)

    async def close(self) -> None:
        """Flush and close."""
        if self._closed:
            return
        self._closed = True
        await self.flush()
        if self._timer is not None:
            self._timer.cancel()
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        if self._inner is not None:
            await self._inner.stop()
        if self._closings:
            await asyncio.wait(self._closings)

    async def _connect(self) -> AIOKafkaProducer:
        if self._inner is None:
            inner = self._make()
            try:
                async with asyncio.timeout(self._timeout_ms / 1000 + 10):
                    await inner.start()
            except BaseException:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_STOP_S):
                        await inner.stop()
                raise
            self._check_before_writing(inner)
            self._inner = inner
            self._lookup = TopicLookup(inner.client)
        return self._inner

    def _check_before_writing(self, inner: AIOKafkaProducer) -> None:
        """Have every request that carries records ask `before_write` and look at their deadlines in the instant before it is written.

        A process that was stopped goes on where it was, ahead of any timer. Seen in chaos tests on a busy machine: a frozen worker's
        signal, and audit records that it had handed over before, left after its thaw, when another worker had gone on with the lane.
        """
        client = inner.client
        send = client.send

        async def check_and_send(node_id: Any, request: Any, **named: Any) -> Any:
            if isinstance(request, ProduceRequest):
                # `send` asks again, and waits for nothing then: between the look and the writing the loop does not turn.
                await client.ready(node_id, **named)
                try:
                    self._before_write()
                except BusError as error:
                    self._cut_off(inner, error)
                if self._waiting and self._waiting[0].deadline <= asyncio.get_running_loop().time():
                    self._expire()
                if not self._uses(inner):
                    raise NodeNotReadyError("the producer was cut off")
            return await send(node_id, request, **named)

        client.send = check_and_send

    def _uses(self, inner: AIOKafkaProducer) -> bool:
        return self._inner is inner

    async def _run(self) -> None:
        while True:
            while not self._queue:
                self._queued.clear()
                await self._queued.wait()
            pending = self._queue[0]
            if not pending.acknowledgement.done():
                await self._forward(pending)
            if pending.acknowledgement.done() or pending.inner is not None:
                self._queue.popleft()
                self._room.set()

    async def _forward(self, pending: _PendingRecord) -> None:
        """Give a record to the inner producer; on a fault that may pass, return with nothing done."""
        try:
            inner = await self._connect()
            future = await self._offer(inner, pending)
            if future is None:
                return
        except BusError as error:
            if isinstance(error.__cause__, KafkaError | OSError | TimeoutError):
                await asyncio.sleep(_RETRY_S)
            else:
                pending.fail(error)
        except MessageSizeTooLargeError as error:
            pending.fail(bus_error(f"sending to {pending.topic!r}", error))
        except KafkaTimeoutError:
            return
        except (KafkaError, OSError, TimeoutError, AssertionError) as error:
            _log.warning("kafka_producer_retry", client_id=self._client_id, error=repr(error))
            if self._inner is not None:
                self._cut_off(self._inner, bus_error(f"sending to {pending.topic!r}", error))
            await asyncio.sleep(_RETRY_S)
        else:
            pending.inner = inner
            future.add_done_callback(lambda done: self._acknowledge(pending, inner, done))

    async def _offer(self, inner: AIOKafkaProducer, pending: _PendingRecord) -> asyncio.Future[Any] | None:
        """Return the inner producer's acknowledgement to come; None when it did not take the record, which then is tried again.

        An inner producer that is cut off meanwhile may never answer: seen once, when a broker refused record after record, and no record
        of its topic or any other left after that.
        """
        try:
            async with asyncio.timeout(_OFFER_TIMEOUT_S) as limit:
                if self._lookup is not None:
                    await self._lookup.partitions(pending.topic)
                if pending.acknowledgement.done() or not self._uses(inner):
                    return None
                future: asyncio.Future[Any] = await inner.send(
                    pending.topic,
                    _NULL_VALUE if pending.value is None else pending.value,
                    pending.key,
                    partition=pending.partition,
                    timestamp_ms=pending.timestamp_ms,
                    headers=list(pending.headers),
                )
                return future
        except TimeoutError:
            if limit.expired():
                return None
            raise

    def _acknowledge(self, pending: _PendingRecord, inner: AIOKafkaProducer, done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            failure = bus_error(f"sending to {pending.topic!r}", error)
            pending.fail(failure)
            self._cut_off(inner, failure)
        elif not pending.acknowledgement.done():
            appended = done.result()
            by_broker = appended.timestamp_type == 1
            pending.acknowledgement.set_result(
                Position(
                    appended.topic,
                    appended.partition,
                    appended.offset,
                    appended.timestamp if by_broker else pending.timestamp_ms,
                )
            )
        while self._waiting and self._waiting[0].acknowledgement.done():
            self._waiting.popleft()  # now, not when its deadline passes: seconds of records would be held

    def _expire(self) -> None:
        """Fail what is past its deadline, and see to it that it cannot leave any more."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = self._waiting
        while waiting and (waiting[0].acknowledgement.done() or waiting[0].deadline <= loop.time()):
            pending = waiting.popleft()
            if pending.acknowledgement.done():
                continue
            failure = BusError(
                f"the broker did not acknowledge a record of topic {pending.topic!r} within {self._timeout_ms} ms; "
                "it is given up, though it may have been appended: look at the broker"
            )
            pending.fail(failure)
            if pending.inner is not None:
                self._cut_off(pending.inner, failure)
        if waiting:
            self._timer = loop.call_at(waiting[0].deadline, self._expire)

    def _cut_off(self, inner: AIOKafkaProducer, why: BusError) -> None:
        """Drop `inner` with all it holds: no byte more leaves it, and what waits in sockets is reset."""
        if not self._uses(inner):
            return
        self._inner = None
        for pending in self._waiting:
            if pending.inner is inner:
                pending.fail(BusError(f"the producer was cut off while this record was on its way: {why}"))
        if (sender := inner._sender.sender_task) is not None:  # noqa: SLF001 - stop() alone would send first
            sender.cancel()
        for connection in inner.client._conns.values():  # noqa: SLF001 - closing flushes, aborting does not
            if connection._writer is not None:  # noqa: SLF001
                connection._writer.transport.abort()  # noqa: SLF001
        closing = asyncio.get_running_loop().create_task(_stop(inner), name=f"close producer {self._client_id}")
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)


async def _stop(inner: AIOKafkaProducer) -> None:
    try:
        await inner.stop()
    except (KafkaError, OSError, asyncio.CancelledError) as error:
        _log.debug("kafka_producer_closed", error=repr(error))
