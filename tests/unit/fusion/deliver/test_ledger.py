"""How long the most overdue trigger has been without outcome."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from services.core.metrics import REGISTRY
from services.fusion.deliver.ledger import Deadlines
from tests.unit.fusion import build
from tests.unit.fusion.build import bar
from tests.unit.fusion.desk import HOLD, Desk, ScriptedEngine


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 100_000), st.booleans()), max_size=40), st.integers(0, 200_000))
def test_what_is_open_and_past_its_deadline_counts_and_nothing_else(events: list[tuple[int, int, bool]], now_ms: int) -> None:
    settings = build.settings(entry_validity_ms={"1m": 5_000}, delivery_reserve_ms=500).fusion
    deadlines, deadlines_ms = Deadlines(settings), dict[int, int]()
    for number, ts_ms, opens in events:
        if opens:
            deadlines.open(build.trigger(number, ts_ms=ts_ms))
            deadlines_ms[number] = ts_ms + 4_500
        else:
            deadlines.close(build.trigger(number))
            deadlines_ms.pop(number, None)
    assert deadlines.longest_overdue_ms(now_ms) == max([0, *(now_ms - deadline_ms for deadline_ms in deadlines_ms.values())])


async def test_a_trigger_is_overdue_until_the_broker_has_its_outcome() -> None:
    answers = asyncio.Event()
    desk = await Desk.open(ScriptedEngine([answers, HOLD]))
    async with desk.running() as worker:
        await desk.bars(*(bar(slot) for slot in range(6)))
        later_ms = desk.clock.now_ms() + 3_600_000
        await desk.until(lambda: len(desk.engine.requests) == 1)
        assert worker._rooms.ledger._deadlines.longest_overdue_ms(later_ms) > 0
        answers.set()
        await desk.concluded(6)
        await desk.until(lambda: worker._rooms.ledger._deadlines.longest_overdue_ms(later_ms) == 0)
        await desk.until(lambda: REGISTRY.get_sample_value("aquiline_trigger_overdue_seconds") == 0)
