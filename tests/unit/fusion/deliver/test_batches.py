"""What is folded of a batch, and what a commit says of it when folding fails."""

from __future__ import annotations

import pytest

from services.core.bus import Record
from services.core.decode import Refused
from services.fusion.state.intake import Intake, Sink, Taken
from tests.unit.fusion.build import MARKET, bar
from tests.unit.fusion.desk import HOLD, Desk, ScriptedEngine


@pytest.mark.parametrize("broken", [5, 7])
async def test_a_commit_does_not_pass_a_record_that_crashed_the_worker(monkeypatch: pytest.MonkeyPatch, broken: int) -> None:
    take = Intake.take

    def failing(self: Intake, record: Record, sink: Sink, *, may_wait: bool = False) -> Taken | Refused:
        if record.topic == MARKET and record.offset == broken:
            raise ZeroDivisionError
        return take(self, record, sink, may_wait=may_wait)

    desk = await Desk.open(ScriptedEngine([HOLD]), start_from="latest")
    await desk.history()
    with monkeypatch.context() as patched:
        patched.setattr(Intake, "take", failing)
        desk.start()
        await desk.ready()
        await desk.bars(*(bar(slot) for slot in range(5, 9)))
        with pytest.raises(ExceptionGroup) as caught:
            await desk.ended()
        assert caught.group_contains(ZeroDivisionError)
    assert (await desk.committed())[MARKET] <= broken
    async with desk.running():
        await desk.until(lambda: desk.worker.accounts.records["folded"] >= 9 - broken)
        await desk.concluded(1)
    assert (await desk.committed())[MARKET] == 9
