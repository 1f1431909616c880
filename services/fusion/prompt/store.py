"""The prefix cache in Redis: token ids of prompt blocks, by content. Losing Redis, at any moment, costs time and nothing else.

A value holds a run of blocks. Its key is a hash of all the text up to and including the last of them, under a fingerprint of tokenizer,
template and prompt version, so that a value can be checked but never be wrong for its key. Every failure is a miss.
"""

from __future__ import annotations

import asyncio
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import redis.asyncio as redis_async
import structlog
from redis.exceptions import RedisError

from services.core import metrics
from services.core.breaker import Breaker
from services.core.clock import Clock
from services.core.settings import RedisSettings
from services.fusion.prompt.blocks import Run
from services.inference.engine import TokenIds

_HEADER: Final = struct.Struct("<4sI")
_SHAPE: Final = struct.Struct("<ii")
_LENGTHS_AT: Final = _HEADER.size + _SHAPE.size
_MAGIC: Final = b"AQL3"
_IDS: Final[dict[int, np.dtype[Any]]] = {2: np.dtype("<u2"), 4: np.dtype("<i4")}
_MAX_PENDING_WRITES: Final = 64
_WRITE_S: Final = 5.0
"""No decision waits for a write. Under the budget of reads, writes timed out while a starting worker held the loop up by building prompts
(four in two seconds of one start), and each counted towards opening the breaker although Redis had answered."""

_log = structlog.get_logger()


def pack(run: Run) -> bytes:
    """Return a run as a value: magic, CRC-32 of the rest; bytes an id, count of blocks, the length of each, all ids.

    Numbers are little-endian int32, ids uint16 where all of the run fit: half the bytes to fetch, check and keep.
    """
    width = 2 if len(run.ids) == 0 or (run.ids.min() >= 0 and run.ids.max() < 1 << 16) else 4
    lengths = np.array(run.lengths, dtype="<i4").tobytes()
    body = _SHAPE.pack(width, len(run.lengths)) + lengths + run.ids.astype(_IDS[width], copy=False).tobytes()
    return _HEADER.pack(_MAGIC, zlib.crc32(body)) + body


def unpack(value: bytes) -> Run | None:
    """Return the run in `value`, None when its magic, checksum or lengths are wrong."""
    if len(value) < _LENGTHS_AT:
        return None
    magic, checksum = _HEADER.unpack_from(value)
    if magic != _MAGIC or zlib.crc32(memoryview(value)[_HEADER.size :]) != checksum:
        return None
    width, count = _SHAPE.unpack_from(value, _HEADER.size)
    ids_at = _LENGTHS_AT + 4 * count
    if width not in _IDS or not _LENGTHS_AT <= ids_at <= len(value):
        return None
    lengths = np.frombuffer(value, "<i4", count, _LENGTHS_AT).tolist()
    if min(lengths, default=0) < 0 or ids_at + width * sum(lengths) != len(value):
        return None
    return Run(np.frombuffer(value, _IDS[width], sum(lengths), ids_at).astype(np.int32, copy=False), lengths)


class PrefixStore:
    """Runs of blocks by key, and which prefixes each engine holds."""

    def __init__(self, client: redis_async.Redis | None, settings: RedisSettings, clock: Clock, fingerprint: str) -> None:
        """`client` is None for no Redis at all; `fingerprint` names tokenizer, template and prompt version."""
        self._client = client
        self._settings = settings
        self._clock = clock
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_open_ms)
        self._space = f"{settings.namespace}:{fingerprint}"
        self._writes: set[asyncio.Task[None]] = set()
        self._reads: set[asyncio.Future[None]] = set()

    async def get(self, runs: Sequence[tuple[bytes, int]]) -> list[Run | None]:
        """Return runs, each given as its last block's key and its count of blocks, None for a miss, within the budget of a decision."""
        missing: list[Run | None] = [None] * len(runs)
        if self._client is None or not runs:
            return missing
        admission = self._breaker.admit(self._clock.now_ms())
        if admission is None:
            return missing
        reading = asyncio.get_running_loop().create_future()
        self._reads.add(reading)
        try:
            async with asyncio.timeout(self._settings.budget_ms / 1000):
                values: list[bytes | None] = await self._client.mget([self._name(key) for key, _ in runs])  # type: ignore[assignment]
        except (RedisError, OSError, TimeoutError) as error:
            self._breaker.settle(admission, "failed", self._clock.now_ms())
            metrics.REDIS_FAILURES.inc()
            _log.warning("redis_failed", operation="mget", error=str(error) or type(error).__name__)
            return missing
        except BaseException:
            self._breaker.settle(admission, "unknown", self._clock.now_ms())
            raise
        finally:
            self._reads.discard(reading)
            reading.set_result(None)
        self._breaker.settle(admission, "answered", self._clock.now_ms())
        found = [None if value is None else unpack(value) for value in values]
        counts: Counter[str] = Counter()
        for at, ((_, count), value) in enumerate(zip(runs, values, strict=True)):
            run = found[at]
            # A key says which blocks lead to it, not how many of them its value holds.
            whole = run is not None and len(run.lengths) == count
            counts["hit" if whole else "miss" if value is None else "corrupt"] += count
            if not whole:
                found[at] = None
        for outcome, count in counts.items():
            metrics.REDIS_BLOCKS.labels(outcome).inc(count)
        return found

    def put(self, runs: Mapping[bytes, Run]) -> None:
        """Store runs by their last block's key in the background; drop them when Redis is slow."""
        if runs and self._client is not None:
            ttl_ms = self._settings.ttl_s * 1000
            values = {self._name(key): (pack(run), int(ttl_ms * random.uniform(0.9, 1.0))) for key, run in runs.items()}  # noqa: S311 - jitter
            self._write(lambda pipeline: [pipeline.set(key, value, px=px) for key, (value, px) in values.items()])

    def used(self, engine: str, prefix: bytes, keys: Sequence[bytes]) -> None:
        """Note in the background that `engine` was asked about the prefix with this last key, whose runs end with `keys`."""
        ttl_s = self._settings.ttl_s
        recipe = f"{self._space}:prefix:{prefix.hex()}"
        ranking = f"{self._space}:engine:{engine}"
        now_ms = self._clock.now_ms()

        def commands(pipeline: redis_async.client.Pipeline) -> None:
            pipeline.set(recipe, b"".join(keys), ex=ttl_s)
            pipeline.zadd(ranking, {prefix: now_ms})
            pipeline.zremrangebyscore(ranking, 0, now_ms - 1000 * ttl_s)
            pipeline.expire(ranking, ttl_s)

        self._write(commands)

    async def hottest(self, engine: str, count: int) -> list[TokenIds]:
        """Return up to `count` prefixes that `engine` was last asked about, the latest first; incomplete ones are left out."""
        if self._client is None:
            return []
        try:
            async with asyncio.timeout(10):
                names: list[bytes] = await self._client.zrevrange(f"{self._space}:engine:{engine}", 0, count - 1)  # type: ignore[assignment]
                found: list[TokenIds] = []
                for name in names:
                    recipe: bytes | None = await self._client.get(f"{self._space}:prefix:{name.hex()}")  # type: ignore[assignment]
                    if recipe is None:
                        continue
                    keys = [recipe[at : at + 16] for at in range(0, len(recipe), 16)]
                    values: list[bytes | None] = await self._client.mget([self._name(key) for key in keys])  # type: ignore[assignment]
                    runs = [run for value in values if value is not None and (run := unpack(value)) is not None]
                    if len(runs) == len(keys):
                        found.append(Run.joined(runs).ids)
                return found
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("redis_failed", operation="hottest", error=str(error) or type(error).__name__)
            return []

    async def close(self) -> None:
        """Wait for what is in flight within the budget, start nothing new, and close."""
        client, self._client = self._client, None
        if in_flight := {*self._writes, *self._reads}:
            await asyncio.wait(in_flight, timeout=self._settings.budget_ms / 1000)
        for task in self._writes:
            task.cancel()
        if client is not None:
            await client.aclose()

    def _name(self, key: bytes) -> str:
        return f"{self._space}:run:{key.hex()}"

    def _write(self, commands: Callable[[redis_async.client.Pipeline], object]) -> None:
        if self._client is None or len(self._writes) >= _MAX_PENDING_WRITES:
            return
        admission = self._breaker.admit(self._clock.now_ms())
        if admission is None:
            return

        async def write(client: redis_async.Redis) -> None:
            try:
                async with asyncio.timeout(_WRITE_S), client.pipeline(transaction=False) as pipeline:
                    commands(pipeline)
                    await pipeline.execute()
            except (RedisError, OSError, TimeoutError) as error:
                self._breaker.settle(admission, "failed", self._clock.now_ms())
                metrics.REDIS_FAILURES.inc()
                _log.warning("redis_failed", operation="write", error=str(error) or type(error).__name__)
            except BaseException:
                self._breaker.settle(admission, "unknown", self._clock.now_ms())
                raise
            else:
                self._breaker.settle(admission, "answered", self._clock.now_ms())

        task = asyncio.create_task(write(self._client), name="prefix-store-write")
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
