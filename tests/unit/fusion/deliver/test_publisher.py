"""What leaves the worker: late acknowledgements, cancels of what is open and of what is in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field

import pytest

from schemas import Action, AuditRecord, Cancel, CancelReason, Signal, decode_signal_message
from schemas.examples import EXAMPLES
from services.core.bus import BusError, Headers, Position
from services.core.clock import VirtualClock
from services.fusion.deliver.publisher import Publisher
from tests.unit.fusion.build import MODE, START, SYMBOL, signal

ETH = "ETH-USD.CBSE"


@dataclass
class HeldProducer:
    """A producer whose acknowledgements come when the test says so."""

    clock: VirtualClock
    holds: bool = False
    fails: int = 0
    ahead_ms: int = 0
    """The broker's clock less ours."""
    sent: list[Signal | Cancel] = field(default_factory=list)
    held: list[asyncio.Future[Position]] = field(default_factory=list)

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
        del key, headers, timestamp_ms, partition
        if self.fails:
            self.fails -= 1
            raise BusError("no broker")
        if topic == "demo.strategy-signals":
            self.sent.append(decode_signal_message(value or b""))
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self.held.append(future)
        if not self.holds:
            future.set_result(Position(topic, 0, len(self.sent), self.clock.now_ms() + self.ahead_ms))
        return future

    def acknowledge(self) -> None:
        for future in self.held:
            if not future.done():
                future.set_result(Position("demo.strategy-signals", 0, 0, self.clock.now_ms()))

    async def flush(self) -> None: ...

    async def close(self) -> None: ...


class Office:
    def __init__(self) -> None:
        self.clock = VirtualClock(START)
        self.signals = HeldProducer(self.clock)
        self.others = HeldProducer(self.clock)
        self.positions: list[Position] = []
        self.publisher = Publisher(self.signals, self.others, clock=self.clock, run_mode=MODE, on_position=self.positions.append)

    async def publish(self, one: Signal) -> None:
        await self.publisher.acknowledgements.wait(await self.publisher.hand_over(one))

    async def cancels(self) -> list[tuple[CancelReason, Signal | Cancel]]:
        await self.publisher.cancels.written(1_000)
        return [(one.reason, one) for one in self.others.sent if isinstance(one, Cancel)]

    async def reasons(self) -> list[CancelReason]:
        return [reason for reason, _ in await self.cancels()]


@pytest.fixture
def office() -> Office:
    return Office()


async def test_an_acknowledgement_after_the_validity_is_followed_by_a_cancel(office: Office) -> None:
    office.signals.holds = True
    handed = await office.publisher.hand_over(signal())
    settling = asyncio.create_task(office.publisher.acknowledgements.wait(handed))
    await asyncio.sleep(0)
    office.clock.advance_to(START + 3_001)
    office.signals.acknowledge()
    await settling
    assert await office.reasons() == [CancelReason.LATE_ACK]
    assert office.publisher.open_signals.cancel(SYMBOL, CancelReason.HALTED, "halt") == 0


async def test_no_acknowledgement_is_followed_by_a_cancel_too(office: Office) -> None:
    office.signals.holds = True
    handed = await office.publisher.hand_over(signal())
    office.signals.held[0].set_exception(BusError("timed out"))
    with pytest.raises(BusError):
        await office.publisher.acknowledgements.wait(handed)
    assert await office.reasons() == [CancelReason.LATE_ACK]
    assert office.positions == []


async def test_a_halt_cancels_what_is_unexpired_and_nothing_else(office: Office) -> None:
    await office.publish(signal(1, valid_until_ms=START + 100))
    await office.publish(signal(2, symbol=ETH))
    await office.publish(signal(3, Action.HOLD, interval="5m"))
    await office.publish(signal(4, interval="15m"))
    office.clock.advance_to(START + 100)
    assert office.publisher.open_signals.cancel(SYMBOL, CancelReason.HALTED, "halt") == 1
    ((reason, cancel),) = await office.cancels()
    assert (reason, cancel.signal_id) == (CancelReason.HALTED, signal(4).signal_id)
    assert office.publisher.open_signals.cancel(None, CancelReason.HALTED, "halt") == 1
    assert office.publisher.open_signals.cancel(None, CancelReason.HALTED, "again") == 0


async def test_a_halt_reaches_a_signal_in_flight_and_its_cancel_comes_after_it(office: Office) -> None:
    office.signals.holds = True
    handed = await office.publisher.hand_over(signal())
    settling = asyncio.create_task(office.publisher.acknowledgements.wait(handed))
    await asyncio.sleep(0)
    assert office.publisher.open_signals.cancel(None, CancelReason.HALTED, "halt") == 1
    assert await office.reasons() == []
    office.signals.acknowledge()
    await settling
    assert await office.reasons() == [CancelReason.HALTED]
    assert office.publisher.open_signals.cancel(None, CancelReason.HALTED, "again") == 0


async def test_a_new_signal_of_a_lane_replaces_the_open_one_of_that_lane_alone(office: Office) -> None:
    await office.publish(signal(1))
    await office.publish(signal(2, mode="deep"))
    await office.publish(signal(3, Action.HOLD))
    await office.publish(signal(4, Action.EXIT))
    ((reason, cancel),) = await office.cancels()
    assert (reason, cancel.signal_id) == (CancelReason.SUPERSEDED, signal(1).signal_id)


async def test_a_cancel_is_tried_until_the_broker_takes_it(office: Office) -> None:
    await office.publish(signal())
    office.others.fails = 3
    office.publisher.open_signals.cancel(SYMBOL, CancelReason.REVISED, "revised")
    for attempt in range(1, 4):
        while office.clock.next_wake_ms() is None:  # noqa: ASYNC110 - the retry tells nobody that it sleeps
            await asyncio.sleep(0)
        office.clock.advance_to(START + attempt * 500)
    assert await office.reasons() == [CancelReason.REVISED]


async def test_what_an_earlier_owner_left_open_is_cancelled_once(office: Office) -> None:
    office.publisher.open_signals.restore(signal(2, interval="2m"))
    office.publisher.open_signals.restore(signal(3, Action.ABSTAIN))
    assert office.publisher.open_signals.cancel(None, CancelReason.SPLIT, "split") == 1
    office.publisher.open_signals.restore(signal(4))
    office.publisher.open_signals.forget(SYMBOL)
    assert office.publisher.open_signals.cancel(None, CancelReason.SPLIT, "split") == 0
    await office.publisher.cancels.stop()


async def test_a_worker_that_stood_still_after_handing_a_signal_over_sees_no_skew(office: Office) -> None:
    handed = await office.publisher.hand_over(signal())
    office.clock.advance_to(START + 2_900)
    await office.publisher.acknowledgements.wait(handed)
    assert office.publisher.skew.skew_ms == 0


async def test_audit_records_show_skew_and_its_end_also_while_no_signal_leaves(office: Office) -> None:
    outcome = EXAMPLES[AuditRecord]
    assert isinstance(outcome, AuditRecord)
    office.others.ahead_ms = 5_000
    await office.publisher.audit(outcome)
    assert office.publisher.skew.skew_ms == -5_000
    office.others.ahead_ms = 0
    await office.publisher.audit(outcome)
    assert office.publisher.skew.skew_ms == 0


async def test_the_append_time_decides_whether_an_acknowledgement_is_late(office: Office) -> None:
    """One that reaches the worker late tells of a signal that consumers have had in time, and the other way round."""
    office.signals.holds = True
    in_time, late = signal(1, symbol=SYMBOL), signal(2, symbol=ETH)
    for one, appended_ms in ((in_time, START + 3_000), (late, START + 3_001)):
        sent = await office.publisher.hand_over(one)
        settling = asyncio.create_task(office.publisher.acknowledgements.wait(sent))
        await asyncio.sleep(0)
        office.signals.held[-1].set_result(Position("demo.strategy-signals", 0, 0, appended_ms))
        office.clock.advance_to(START + 10_000)
        await settling
    assert [cancel.signal_id for _, cancel in await office.cancels()] == [late.signal_id]


async def test_a_halt_cancels_what_is_still_valid_by_the_brokers_clock(office: Office) -> None:
    office.signals.ahead_ms = -1_900
    await office.publish(signal())
    assert office.publisher.skew.skew_ms == 1_900
    office.clock.advance_to(START + 4_500)
    assert office.publisher.open_signals.cancel(SYMBOL, CancelReason.HALTED, "halt") == 1
    office.clock.advance_to(START + 5_000)
    await office.publish(signal(2))
    office.clock.advance_to(START + 9_000)
    assert office.publisher.open_signals.cancel(SYMBOL, CancelReason.HALTED, "halt") == 0
