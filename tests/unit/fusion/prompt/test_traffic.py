"""When work that can wait may begin beside decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fusion.prompt import traffic as traffic_module
from services.fusion.prompt.traffic import EngineTraffic, patience_ms

TIMES_MS = st.lists(st.floats(0, 10_000), max_size=32)


@given(TIMES_MS, st.floats(0, 10_000), st.floats(0, 1_000))
def test_by_earlier_quiet_times_a_decision_is_held_up_by_half_a_step_at_most_and_the_wait_ends(
    lasted_ms: Sequence[float], quiet_ms: float, step_ms: float
) -> None:
    at_ms = quiet_ms + patience_ms(lasted_ms, quiet_ms, step_ms)
    held_up_ms = [max(0.0, at_ms + step_ms - one_ms) for one_ms in lasted_ms if one_ms > at_ms]
    assert fmean(held_up_ms or [0.0]) <= step_ms / 2 + 1e-6
    assert at_ms <= max([quiet_ms, *lasted_ms]) + 1e-6


@pytest.mark.parametrize(
    ("lasted_ms", "quiet_ms", "wait_ms"),
    [
        pytest.param([], 0, 0, id="nothing is known"),
        pytest.param([130] * 32, 0, 0, id="a step fits"),
        pytest.param([130] * 32, 110, 20, id="another one does not"),
        pytest.param([40] * 32, 0, 0, id="held up by a fifth of a step"),
        pytest.param([5] * 32, 0, 5, id="a burst"),
        pytest.param([5] * 32, 6, 0, id="after a burst"),
        pytest.param([5] * 31 + [60_000], 0, 5, id="bursts once a minute"),
    ],
)
def test_a_step_begins_where_earlier_quiet_times_had_room_for_it(lasted_ms: Sequence[float], quiet_ms: float, wait_ms: float) -> None:
    assert patience_ms(lasted_ms, quiet_ms, 50) == wait_ms


async def test_it_is_not_quiet_before_the_broker_has_a_decisions_signal() -> None:
    traffic = EngineTraffic()
    traffic.decision_begins()
    waiting = asyncio.create_task(traffic.quiet())
    with traffic.signal():
        traffic.decision_ends()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
    async with asyncio.timeout(10):
        await waiting


async def test_work_that_can_wait_begins_beside_a_broker_that_never_acknowledges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic_module, "_LONGEST_WAIT_S", 0.01)
    traffic = EngineTraffic()
    traffic.decision_begins()
    with traffic.signal():
        waiting = asyncio.create_task(traffic.quiet())
        await asyncio.sleep(0.05)
        assert not waiting.done(), "a decision is waited for however long it takes"
        traffic.decision_ends()
        async with asyncio.timeout(10):
            await waiting


async def test_work_that_once_took_long_finds_its_turn_between_decisions_at_a_steady_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(traffic_module, "_LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(traffic_module, "_now_s", lambda: now_s)
    traffic = EngineTraffic()
    traffic._lasted_ms.extend([1_000] * 32)
    traffic.decision_begins()
    waiting = asyncio.create_task(traffic.quiet(60_000))
    async with asyncio.timeout(10):
        while not waiting.done():
            traffic.decision_ends()
            await asyncio.sleep(0.001)
            now_s += 1
            traffic.decision_begins()
            await asyncio.sleep(0)
    assert traffic._lasted_ms.count(1_000) == 32
