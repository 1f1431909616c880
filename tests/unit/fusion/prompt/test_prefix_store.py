"""The prefix cache: whatever Redis does is at worst a miss, within its budget."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import cast

import numpy as np
import pytest
import redis.asyncio as redis_async
from fakeredis import FakeAsyncRedis
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError

from services.core.clock import VirtualClock
from services.core.settings import RedisSettings
from services.fusion.prompt.blocks import Run
from services.fusion.prompt.store import PrefixStore, pack, unpack
from tests.unit.fusion import build
from tests.unit.fusion.build import SYMBOL, bar, instrument, record
from tests.unit.fusion.log import Folder

KEYS = [bytes([number]) * 16 for number in range(3)]
ONES = [(key, 1) for key in KEYS]
IDS = [np.arange(number + 1, dtype=np.int32) for number in range(3)]


@pytest.fixture
async def server() -> AsyncIterator[redis_async.Redis]:
    client = FakeAsyncRedis()
    yield client
    await client.aclose()


class Broken:
    """A client that fails, or never answers."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.calls = 0
        self._hangs = hangs

    async def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        del keys
        self.calls += 1
        if self._hangs:
            await asyncio.Event().wait()
        raise RedisConnectionError("connection refused")


def store(client: object, clock: VirtualClock | None = None, **settings: object) -> PrefixStore:
    values = RedisSettings.model_validate({"breaker_failures": 2, "breaker_open_ms": 1_000, **settings})
    return PrefixStore(cast("redis_async.Redis", client), values, clock or VirtualClock(0), "f" * 16)


async def written(one: PrefixStore) -> None:
    await asyncio.gather(*one._writes)


IDS_OF_A_RUN = st.sampled_from([st.integers(0, 2**16 - 1), st.integers(0, 2**16), st.integers(-(2**31), 2**31 - 1)])
RUNS = IDS_OF_A_RUN.flatmap(lambda ids: st.lists(st.lists(ids, max_size=20), min_size=1, max_size=6))


def run_of(blocks: list[list[int]]) -> Run:
    return Run.of([np.array(ids, dtype=np.int32) for ids in blocks])


def told(run: Run | None) -> tuple[list[int], list[int]] | None:
    return None if run is None else (run.ids.tolist(), list(run.lengths))


@given(RUNS)
def test_ids_survive_packing(blocks: list[list[int]]) -> None:
    run = run_of(blocks)
    assert told(unpack(pack(run))) == told(run)


@given(RUNS, st.data())
def test_any_changed_bit_and_any_cut_is_a_miss(blocks: list[list[int]], data: st.DataObject) -> None:
    packed = bytearray(pack(run_of(blocks)))
    at = data.draw(st.integers(0, 8 * len(packed) - 1))
    assert unpack(bytes(packed[: at // 8])) is None
    packed[at // 8] ^= 1 << at % 8
    assert unpack(bytes(packed)) is None


def test_ids_that_fit_take_two_bytes_each() -> None:
    narrow, wide = run_of([[0] * 100, [2**16 - 1]]), run_of([[0] * 100, [2**16]])
    assert len(pack(wide)) - len(pack(narrow)) == 2 * 101


@given(st.integers(-1, 5), st.integers(-3, 9), st.lists(st.integers(-5, 20), max_size=8), st.binary(max_size=20))
def test_shapes_that_do_not_add_up_are_a_miss(width: int, count: int, lengths: list[int], ids: bytes) -> None:
    body = struct.pack("<ii", width, count) + np.array(lengths, dtype="<i4").tobytes() + ids
    found = unpack(struct.pack("<4sI", b"AQL3", zlib.crc32(body)) + body)
    if found is not None:
        assert width in {2, 4}
        assert len(found.lengths) == count
        assert min(found.lengths, default=0) >= 0
        assert sum(found.lengths) == len(found.ids)
        assert len(body) == 8 + 4 * count + width * len(found.ids)


async def test_what_was_put_is_found_and_what_is_corrupt_is_a_miss(server: redis_async.Redis) -> None:
    one = store(server)
    one.put({KEYS[0]: Run.of(IDS[:1]), KEYS[1]: Run.of(IDS[:2]), KEYS[2]: Run.of(IDS[1:])})
    await written(one)
    await server.set(f"aquiline:{'f' * 16}:run:{KEYS[1].hex()}", b"AQL3 rubbish")
    found = await one.get([(KEYS[0], 1), (KEYS[1], 2), (KEYS[2], 2), (b"\x09" * 16, 1)])
    assert [told(run) for run in found] == [([0], [1]), None, ([0, 1, 0, 1, 2], [2, 3]), None]


async def test_a_value_of_another_count_of_blocks_is_a_miss(server: redis_async.Redis) -> None:
    one = store(server)
    one.put({KEYS[2]: Run.of(IDS[1:])})
    await written(one)
    assert await one.get([(KEYS[2], 1), (KEYS[2], 3)]) == [None, None]


async def test_a_value_of_the_format_before_is_a_miss(server: redis_async.Redis) -> None:
    one = store(server)
    body = np.array([1, 9, *range(9)], dtype="<i4").tobytes()
    await server.set(f"aquiline:{'f' * 16}:run:{KEYS[0].hex()}", struct.pack("<4sI", b"AQL2", zlib.crc32(body)) + body)
    assert await one.get([(KEYS[0], 1)]) == [None]


async def test_lifetimes_are_shortened_by_up_to_a_tenth(server: redis_async.Redis) -> None:
    one = store(server, ttl_s=1_000)
    keys = [number.to_bytes(16, "big") for number in range(100)]
    one.put(dict.fromkeys(keys, Run.of(IDS[:1])))
    await written(one)
    left = [await server.pttl(name) for name in await server.keys("*")]
    assert len(left) == 100
    assert all(900_000 - 5_000 <= ms <= 1_000_000 for ms in left)
    assert len(set(left)) > 10


async def test_a_redis_that_hangs_costs_the_budget_and_then_nothing() -> None:
    clock, hanging = VirtualClock(0), Broken(hangs=True)
    one = store(hanging, clock, budget_ms=10)
    for _ in range(5):
        assert await one.get(ONES) == [None] * 3
    assert hanging.calls == 2
    clock.advance_to(1_000)
    assert await one.get(ONES) == [None] * 3
    assert hanging.calls == 3


async def test_a_redis_that_refuses_is_left_alone_for_a_while() -> None:
    clock, refusing = VirtualClock(0), Broken()
    one = store(refusing, clock)
    for _ in range(10):
        assert await one.get(ONES) == [None] * 3
    assert refusing.calls == 2
    one.put({KEYS[0]: Run.of(IDS[:1])})
    assert not one._writes


async def test_without_redis_everything_is_a_miss() -> None:
    one = store(None)
    assert await one.get(ONES) == [None] * 3
    one.put({KEYS[0]: Run.of(IDS[:1])})
    one.used("engine", KEYS[0], KEYS)
    assert await one.hottest("engine", 5) == []
    await one.close()


async def test_the_hottest_prefixes_of_an_engine_are_listed_latest_first_without_incomplete_ones(server: redis_async.Redis) -> None:
    clock = VirtualClock(1_000)
    one = store(server, clock)
    one.put({KEYS[0]: Run.of(IDS[:1]), KEYS[1]: Run.of(IDS[1:2])})
    for blocks in (KEYS[:1], KEYS[:2], KEYS):
        one.used("engine", blocks[-1], blocks)
        await written(one)
        clock.advance_to(clock.now_ms() + 1)
    assert [ids.tolist() for ids in await one.hottest("engine", 5)] == [[0, 0, 1], [0]]
    assert await one.hottest("another", 5) == []


async def test_strings_from_topics_do_not_reach_keys(server: redis_async.Redis) -> None:
    folder = Folder(build.settings(), redis=server, instruments=[instrument()])
    folder.feed([record(slot, bar(slot)) for slot in range(30)])
    prompt = await folder.prompt(SYMBOL)
    folder.store.used("an engine", prompt.prefix.blocks[-1].key, prompt.prefix.recipe)
    await written(folder.store)
    names = [name if isinstance(name, str) else name.decode() for name in await server.keys("*")]
    assert {name.split(":")[2] for name in names} == {"run", "prefix", "engine"}
    for name in names:
        space, _, kind, what = name.split(":")
        assert (space, kind) in {("aquiline", "run"), ("aquiline", "prefix"), ("aquiline", "engine")}
        assert kind == "engine" or bytes.fromhex(what)
        assert SYMBOL not in name


async def test_what_is_being_read_when_the_store_closes_ends_first(server: redis_async.Redis) -> None:
    one = store(server)
    one.put({KEYS[0]: Run.of(IDS[:1])})
    await written(one)
    reading = asyncio.create_task(one.get([(KEYS[0], 1)]))
    await asyncio.sleep(0)
    await one.close()
    assert [told(run) for run in await reading] == [([0], [1])]
    assert await one.get([(KEYS[0], 1)]) == [None]
