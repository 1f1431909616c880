"""Clocks: the machine's, and a virtual one that moves only when told."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.clock import SystemClock, VirtualClock


def test_the_system_clock_is_the_machines() -> None:
    before = time.time_ns() // 1_000_000
    now = SystemClock().now_ms()
    assert before <= now <= time.time_ns() // 1_000_000


async def test_the_system_clock_waits_until_the_time_has_come() -> None:
    clock = SystemClock()
    at_ms = clock.now_ms() + 5
    await clock.sleep_until(at_ms)
    assert clock.now_ms() >= at_ms


async def test_a_time_that_has_passed_is_not_waited_for() -> None:
    clock = VirtualClock(100)
    await clock.sleep_until(100)
    await clock.sleep_until(1)
    assert clock.next_wake_ms() is None


async def _woken(times: list[int], steps: list[int]) -> list[int]:
    clock = VirtualClock()
    woken: list[int] = []

    async def wait(at_ms: int) -> None:
        await clock.sleep_until(at_ms)
        assert clock.now_ms() >= at_ms
        woken.append(at_ms)

    async with asyncio.TaskGroup() as tasks:
        for at_ms in times:
            tasks.create_task(wait(at_ms))
        await asyncio.sleep(0)
        for step in sorted(steps):
            clock.advance_to(step)
            await asyncio.sleep(0)
            assert sorted(woken) == sorted(at_ms for at_ms in times if at_ms <= step)
        clock.advance_to(max([*times, *steps, 0]))
    return woken


@given(st.lists(st.integers(1, 50)), st.lists(st.integers(1, 50)))
def test_waiters_wake_in_the_order_of_their_times_and_never_early(times: list[int], steps: list[int]) -> None:
    assert asyncio.run(_woken(times, steps)) == sorted(times)


async def test_the_next_wake_is_the_earliest_that_somebody_still_waits_for() -> None:
    clock = VirtualClock()
    early, late = (asyncio.create_task(clock.sleep_until(at_ms)) for at_ms in (10, 20))
    await asyncio.sleep(0)
    assert clock.next_wake_ms() == 10
    early.cancel()
    await asyncio.gather(early, return_exceptions=True)
    assert clock.next_wake_ms() == 20
    clock.advance_to(20)
    await late


def test_virtual_time_does_not_go_back() -> None:
    clock = VirtualClock(100)
    with pytest.raises(ValueError, match="at 100 ms and cannot go back to 99 ms"):
        clock.advance_to(99)
