"""What is kept of a partition's earlier work: what may still be needed, and no more, however long the outputs are."""

from __future__ import annotations

from uuid import UUID, uuid5

from schemas import AuditRecord, Cancel, CancelReason, Outcome, Signal
from schemas.examples import EXAMPLES
from services.core.bus import Committed, TopicPartition
from services.fusion.deliver.history import PartitionHistory
from tests.unit.fusion.build import MARKET, MODE, START, VISION, bar, signal
from tests.unit.fusion.desk import HOLD, Desk, ScriptedEngine

HERE = {TopicPartition(MARKET, 0): 1_000, TopicPartition(VISION, 0): 1_000}
SPACE = UUID(int=7)


def at(number: int, valid_until_ms: int = START + 3_000) -> Signal:
    """Return the signal of the trigger that record `number` made."""
    one = signal(number, valid_until_ms=valid_until_ms)
    ref = one.as_of.market.model_copy(update={"topic": MARKET, "partition": 0, "offset": number})
    as_of = one.as_of.model_copy(update={"market": ref, "vision": None})
    return one.model_copy(update={"as_of": as_of, "trigger_id": uuid5(SPACE, f"t{number}"), "signal_id": uuid5(SPACE, f"s{number}")})


def audit_of(one: Signal) -> AuditRecord:
    example = EXAMPLES[AuditRecord]
    assert isinstance(example, AuditRecord)
    return example.model_copy(
        update={
            "trigger_id": one.trigger_id,
            "signal_id": one.signal_id,
            "outcome": Outcome.PUBLISHED,
            "as_of": one.as_of,
            "trigger": one.as_of.market,
            "symbol": one.symbol,
        }
    )


def test_signals_and_outcomes_before_the_start_are_not_kept() -> None:
    history = PartitionHistory(HERE, now_ms=START + 10_000, since_ms=START + 10_000)
    for number in range(2_000):
        history.add(at(number))
    assert len(history.unaudited) == 1_000
    for number in range(2_000):
        history.add(audit_of(at(number)))
    assert (len(history.ended), len(history.unaudited), len(history.open), len(history.actions)) == (1_000, 0, 0, 0)
    assert [held.market.offset for held in history.as_of.values()] == [1_999]
    history.caught_up()
    assert not history.ended


def test_the_audit_may_be_read_before_the_signal() -> None:
    history = PartitionHistory(HERE)
    history.add(audit_of(at(1_000)))
    history.add(at(1_000))
    assert (len(history.ended), len(history.unaudited)) == (1, 0)


def test_what_is_open_is_kept_until_its_cancel_is_read() -> None:
    history = PartitionHistory(HERE, now_ms=START, since_ms=START)
    one = at(5)
    history.add(one)
    assert list(history.open) == [one.signal_id]
    history.add(
        Cancel(
            schema_version=1,
            run_mode=MODE,
            symbol=one.symbol,
            interval=one.interval,
            mode=one.mode,
            signal_id=one.signal_id,
            ts_decided_ms=START,
            reason=CancelReason.HALTED,
            detail="",
        )
    )
    assert not history.open


async def test_a_worker_keeps_no_signal_of_before_once_it_has_caught_up_after_an_offset_repair_by_hand() -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), min_bars=1)
    async with desk.running():
        for slot in range(6):
            await desk.bars(bar(slot))
            await desk.concluded(slot + 1)
    for tp, held in desk.group.committed.items():
        desk.group.committed[tp] = Committed(0 if tp.topic == MARKET else held.offset, "")
    async with desk.running() as worker:
        await desk.until(lambda: worker.caught_up)
        await desk.bars(bar(6))
        await desk.concluded(7)
        for number in range(2):
            owned = worker._rooms.partitions.owned(number)
            assert owned is not None
            history = owned.history
            assert (history.ended, history.unaudited, history.open, history.actions) == (set(), {}, {}, [])
    assert len({one.trigger_id for one in await desk.audit()}) == 7
