"""A worker that was paused for too long is fenced for good."""

from __future__ import annotations

import pytest

from services.core.bus.memory import MemoryBus
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from services.core.zombie_fence import FencedError, ZombieFence


class Time:
    """A clock that is told what it shows."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_worker_that_gives_signs_of_life_in_time_is_never_fenced() -> None:
    time = Time()
    fence = ZombieFence(2.0, time)
    fence.check()
    for _ in range(5):
        fence.alive()
        time.now_s += 2.0
        fence.check()


def test_what_came_before_the_first_sign_of_life_does_not_count() -> None:
    time = Time()
    fence = ZombieFence(2.0, time)
    time.now_s += 60
    fence.alive()


def test_a_fence_that_has_fallen_never_rises_again() -> None:
    time = Time()
    fence = ZombieFence(2.0, time)
    fence.alive()
    time.now_s += 2.1
    with pytest.raises(FencedError, match=r"was paused for 2\.1 s"):
        fence.check()
    with pytest.raises(FencedError):
        fence.alive()


async def test_nothing_is_handed_over_once_it_has_fallen() -> None:
    time = Time()
    fence = ZombieFence(2.0, time)
    fence.alive()
    producer = await MemoryBus(SystemClock()).producer(client_id="test", before_write=fence.check)
    time.now_s += 3
    with pytest.raises(FencedError):
        await producer.send("topic", key=b"k", value=b"v")


async def test_a_bus_inside_the_process_needs_none() -> None:
    await ZombieFence.of(BusSettings(url="memory://")).keep()


async def test_the_keeper_of_a_fallen_fence_says_so() -> None:
    time = Time()
    fence = ZombieFence(0.05, time)
    fence.alive()
    time.now_s += 1
    with pytest.raises(FencedError):
        await fence.keep()
