"""Where ids come from: the process, then Redis in runs, then the tokenizer; and what is evicted comes back the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from fakeredis import FakeAsyncRedis, FakeServer

from services.core.clock import VirtualClock
from services.core.settings import RedisSettings
from services.fusion.prompt.blocks import Block, Encoder, chain, runs
from services.fusion.prompt.cache import BlockCache
from services.fusion.prompt.chat import TEMPLATES, Piece
from services.fusion.prompt.layout import PAGE_BARS
from services.fusion.prompt.prefix import RUN_BLOCKS
from services.fusion.prompt.store import PrefixStore
from services.inference.engine import TokenIds
from tests.unit.fusion import build
from tests.unit.fusion.build import bar_at, instrument, record
from tests.unit.fusion.log import SYMBOLS, Folder

BLOCKS = chain(b"root", [f"page {number}\n" for number in range(2 * RUN_BLOCKS + 3)])


class Counting(Encoder):
    """Tells which pieces the tokenizer was asked for."""

    def __init__(self) -> None:
        super().__init__(build.tokenizer(), TEMPLATES["minicpm4"])
        self.asked: list[Piece] = []

    def encode_all(self, pieces: Sequence[Piece]) -> list[TokenIds]:  # type: ignore[override]
        self.asked.extend(pieces)
        return super().encode_all(pieces)


class Desk:
    """A process with its own pages before a Redis that others may share."""

    def __init__(self, server: FakeServer, max_bytes: int = 1 << 20) -> None:
        self.encoder = Counting()
        self.store = PrefixStore(FakeAsyncRedis(server=server), RedisSettings(url="memory://"), VirtualClock(0), "f" * 16)
        self.cache = BlockCache(self.encoder, self.store, max_bytes)

    async def ids(self, blocks: Sequence[Block], *, whole: bool = True) -> list[int]:
        """Return the ids of `blocks`; `whole` says that nothing follows them, so that the last run is stored short."""
        end = len(blocks) if whole else len(blocks) - len(blocks) % RUN_BLOCKS
        found = await self.cache.resolve(blocks, list(runs(0, end, RUN_BLOCKS)))
        await asyncio.gather(*self.store._writes)
        assert len(found.lengths) == len(blocks)
        assert sum(found.lengths) == len(found.ids)
        return list(map(int, found.ids))


def tokenized(blocks: Sequence[Block]) -> list[int]:
    return [int(one) for block in blocks for one in build.tokenizer().encode(str(block.piece))]


@pytest.mark.parametrize("max_bytes", [1, 1 << 20])
async def test_pages_that_come_one_by_one_are_stored_once_their_run_is_whole(max_bytes: int) -> None:
    server = FakeServer()
    desk = Desk(server, max_bytes)
    for end in range(1, len(BLOCKS) + 1):
        assert await desk.ids(BLOCKS[:end], whole=False) == tokenized(BLOCKS[:end])
    other = Desk(server)
    assert await other.ids(BLOCKS, whole=False) == tokenized(BLOCKS)
    assert other.encoder.asked == [block.piece for block in BLOCKS[2 * RUN_BLOCKS :]]


async def test_in_a_process_with_room_each_page_is_tokenized_once() -> None:
    desk = Desk(FakeServer())
    for end in range(1, len(BLOCKS) + 1):
        await desk.ids(BLOCKS[:end], whole=False)
    await desk.ids(BLOCKS)
    assert desk.encoder.asked == [block.piece for block in BLOCKS]


async def test_the_end_of_what_is_whole_is_stored_too() -> None:
    server = FakeServer()
    await Desk(server).ids(BLOCKS)
    other = Desk(server)
    assert await other.ids(BLOCKS) == tokenized(BLOCKS)
    assert other.encoder.asked == []


async def test_no_more_is_kept_than_there_is_room_for() -> None:
    desk = Desk(FakeServer(), max_bytes=400)
    for number in range(50):
        await desk.ids(chain(b"%d" % number, [f"page {number}\n"]))
        assert desk.cache._bytes == sum(run.ids.nbytes for run in desk.cache._held.values()) <= 400


async def test_an_evicted_base_comes_back_out_of_redis_with_its_lines_still_there() -> None:
    server = FakeServer()
    using = build.settings(window_bars=200, epoch_slots=64)
    tight = Folder(using, redis=FakeAsyncRedis(server=server), instruments=map(instrument, SYMBOLS), local_bytes=1)
    roomy = Folder(using, redis=FakeAsyncRedis(), instruments=map(instrument, SYMBOLS))
    offset = 0
    for slot in range(300):
        for symbol in SYMBOLS:
            one = record(offset, bar_at(build.START + slot * build.MINUTE, 100 + slot % 7, symbol=symbol))
            offset += 1
            tight.feed([one])
            roomy.feed([one])
            if slot >= 200:
                prompt = await tight.prompt(symbol)
                assert prompt.hash == (await roomy.prompt(symbol)).hash
                await asyncio.gather(*tight.store._writes)
                assert [prefix.filled for prefix in tight.prompts._prefixes.values()] == [False, True][-len(tight.prompts._prefixes) :]
    # What the engine holds is not less for the worker's having evicted it.
    assert tight.prompts.live_tokens == pytest.approx(roomy.prompts.live_tokens, abs=100)
    # A worker that starts now finds all but the last lines in Redis.
    plan = tight.prompts.plan(tight.book(symbol), "1m", "fast")
    lines = chain(plan.prefix.blocks[-1].key, plan.lines)
    wanted = [*plan.prefix.recipe, *(lines[at].key for at in range(PAGE_BARS - 1, len(lines), PAGE_BARS))]
    assert len(wanted) > len(plan.prefix.recipe)
    assert await FakeAsyncRedis(server=server).exists(*map(tight.store._name, wanted)) == len(wanted)
