"""One shared Redis connection against a pool of them, where Redis is 0, 1 and 3 ms away: how soon prefixes are back, and how many a second.

A caller fetches the token ids of a prompt of 32K tokens as the worker does, with one MGET of five values of 13 KB, and starts again
once it has them. Redis is real. A proxy in a process of its own delays each packet by half of the round trip each way. The two clients
run by turns, so that other load on the machine falls on both.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import redis.asyncio as redis_async

from benchmarks.harness import Measured, Target, percentile, run_alone, say
from benchmarks.local import module
from deploy.local import LocalRedis
from services.core.redis import connect
from services.core.settings import RedisSettings

_DELAYS_MS: Final = (0, 1, 3)
_CALLERS: Final = (1, 4, 16)
_KEYS: Final = [f"benchmark:{number}" for number in range(5)]
_VALUE_BYTES: Final = 13_000
_TURN_S: Final = 1.5
_ROUNDS: Final = 3
_KINDS: Final = ("one connection", "pool")


async def measure(quick: bool) -> Measured:  # noqa: FBT001 - the harness' signature
    """Fetch through both clients at every delay, with every number of callers."""
    rows: list[dict[str, Any]] = []
    rounds, turn_s = (1, 0.3) if quick else (_ROUNDS, _TURN_S)
    with tempfile.TemporaryDirectory(prefix="aquiline-benchmark-") as folder, LocalRedis(Path(folder)) as server:
        for delay_ms in _DELAYS_MS:
            async with _away(server.url, delay_ms) as url:
                settings = RedisSettings(url=url)
                clients = {kind: _client(settings, kind) for kind in _KINDS}
                await clients["pool"].mset({key: secrets.token_bytes(_VALUE_BYTES) for key in _KEYS})
                for callers in _CALLERS:
                    rows += await _compared(clients, delay_ms, callers, rounds, turn_s)
                    say(str(rows[-2:]))
                for client in clients.values():
                    await client.aclose()
        chosen = connect(RedisSettings(url=server.url))
        assert chosen is not None
        kind = "one connection" if chosen.single_connection_client else "pool"
        await chosen.aclose()
    at_one = {row["client"]: row for row in rows if row["round trip added, ms"] == 1 and row["callers"] == 4}
    best = max(at_one, key=lambda name: at_one[name]["answers/s"])
    return Measured(
        rows=rows,
        setting={"values": len(_KEYS), "bytes each": _VALUE_BYTES, "seconds a turn": turn_s, "turns": rounds, "client in use": kind},
        targets=[
            Target(
                "answers/s of the client in use against the best one's, 1 ms away, 4 callers",
                0.95,
                at_least=True,
                got=round(at_one[kind]["answers/s"] / at_one[best]["answers/s"], 2),
            )
        ],
    )


async def _compared(clients: dict[str, redis_async.Redis], delay_ms: int, callers: int, rounds: int, turn_s: float) -> list[dict[str, Any]]:
    taken: dict[str, list[float]] = {kind: [] for kind in clients}
    rates: dict[str, list[float]] = {kind: [] for kind in clients}
    for client in clients.values():
        await client.mget(_KEYS)
    for _ in range(rounds):
        for kind, client in clients.items():
            began = time.perf_counter()
            found = await _turn(client, callers, turn_s)
            rates[kind].append(len(found) / (time.perf_counter() - began))
            taken[kind] += found
    return [
        {
            "round trip added, ms": delay_ms,
            "callers": callers,
            "client": kind,
            "answers/s": round(statistics.median(rates[kind])),
            "median, ms": round(1000 * percentile(taken[kind], 0.5), 2),
            "p95, ms": round(1000 * percentile(taken[kind], 0.95), 2),
        }
        for kind in clients
    ]


async def _turn(client: redis_async.Redis, callers: int, turn_s: float) -> list[float]:
    until, found = time.perf_counter() + turn_s, []

    async def caller() -> None:
        while (began := time.perf_counter()) < until:
            values = await client.mget(_KEYS)
            assert len(values) == len(_KEYS)
            found.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(caller())
    return found


def _client(settings: RedisSettings, kind: str) -> redis_async.Redis:
    return redis_async.Redis.from_url(
        settings.url, socket_timeout=None, socket_read_size=262_144, single_connection_client=kind == "one connection"
    )


@asynccontextmanager
async def _away(url: str, delay_ms: int) -> AsyncIterator[str]:
    """Yield the address of Redis with so much added to each round trip."""
    if delay_ms == 0:
        yield url
        return
    async with module("benchmarks.redis_clients", "--proxy", url.removeprefix("redis://").split("/")[0], str(delay_ms)) as address:
        yield f"redis://{address}/0"


async def _proxy(target: str, delay_ms: float) -> None:
    host, _, port = target.partition(":")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop, tasks = asyncio.get_running_loop(), set[asyncio.TimerHandle]()
        while data := await reader.read(262_144):
            tasks.add(loop.call_later(delay_ms / 2000, writer.write, data))
            tasks = {task for task in tasks if not task.cancelled() and task.when() > loop.time()}
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection(host, int(port), limit=2**20)
        await asyncio.gather(pass_on(reader, other_writer), pass_on(other_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
    print(f"delaying by {delay_ms} ms: 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--proxy", nargs=2, metavar=("HOST:PORT", "MS"), default=None)
    asked, rest = parser.parse_known_args()
    if asked.proxy is not None:
        asyncio.run(_proxy(asked.proxy[0], float(asked.proxy[1])))
    sys.exit(run_alone("redis_clients", __doc__, measure, rest))
