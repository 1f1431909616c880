"""Time and memory of taking 1,000 symbols of 512 bars over from Kafka, as a worker does when it starts.

The worker is the real one, in a process of its own, in a new group that starts at the log's end. The time runs from joining the group
until every book stands, to the first partition that is decided on, and from the start of the process, imports and tables included: what a
supervisor that starts a killed worker again waits for. The memory is what the process has grown by then, and again once each symbol's
prompt has been built, when lines and token ids are there as well.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

import orjson

from benchmarks.feed import MODE, load, minutes, publish_instruments, symbols
from benchmarks.harness import Measured, Target, before, rss_mb, run_alone, say
from benchmarks.local import kafka
from services.core import logs, memory_tuning
from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.fusion_settings import FusionSettings
from services.core.health import Health
from services.core.settings import BusSettings, EngineSettings, LogSettings, RedisSettings, Settings
from services.fusion.service import make_worker

SYMBOLS: Final = 1_000
BARS: Final = 512
EPOCH_SLOTS: Final = 64
PARTITIONS: Final = 8
LONGEST_S: Final = 30.0
OF_BEFORE: Final = 0.5
"""Of the time that the version before takes on this machine."""
MOST_MB: Final = 300.0
_READY_AT: Final = "ready at"
"""Key of the time at which the worker's process was ready, in seconds since 1970."""


async def measure(quick: bool) -> Measured:  # noqa: FBT001 - the harness calls it
    """Fill a topic, and have a worker in another process take it over."""
    count = 100 if quick else SYMBOLS
    rounds = 1 if quick else 3
    names = symbols(count)
    measured = Measured(
        rows=before("rebuild"),
        setting={"symbols": count, "bars": BARS, "partitions": PARTITIONS, "window_bars": _window(BARS), "epoch_slots": EPOCH_SLOTS},
    )
    rows: list[dict[str, Any]] = []
    async with kafka(PARTITIONS) as server:
        await publish_instruments(KafkaBus(BusSettings(url=server.url), SystemClock()), names)
        total, size = await load(server.bootstrap, minutes(names, BARS, updates=0), PARTITIONS)
        say(f"{total} records of {size:.0f} bytes on average")
        for _ in range(rounds):
            rows.append({"version": "now", **await taken_over(server.url, count, BARS)})
            say(str(rows[-1]))
    measured.rows += rows
    measured.targets = targets(measured.rows)
    return measured


def targets(rows: Sequence[Mapping[str, Any]]) -> list[Target]:
    """Return what is aimed at of the rows of this version, and beside those of the version before."""
    now = [row for row in rows if row["version"] == "now"]
    earlier = [row for row in rows if row["version"] != "now"]
    found = [
        Target(
            "seconds until every book stands, slowest round", LONGEST_S, at_least=False, got=max(row["seconds"] for row in now), unit="s"
        ),
        Target(
            "growth of memory with every prompt built, largest",
            MOST_MB,
            at_least=False,
            got=max(row["MB with prompts built"] for row in now),
            unit="MB",
        ),
    ]
    if earlier:
        took_s, before_s = (statistics.median(row["seconds"] for row in of) for of in (now, earlier))
        what = f"seconds until every book stands, median, beside {before_s} of {earlier[0]['version']}"
        found.append(Target(what, round(OF_BEFORE * before_s, 2), at_least=False, got=took_s, unit="s"))
    return found


async def taken_over(url: str, count: int, bars: int) -> dict[str, float]:
    """Have a worker in a process of its own take over what the broker holds, and return the row."""
    command = [sys.executable, "-m", "benchmarks.rebuild", "--take-over", url, str(count), str(bars)]
    started_s = time.time()
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    assert process.returncode == 0, f"the worker's process ended with {process.returncode}"
    row: dict[str, float] = orjson.loads(told)
    row["seconds from the process's start"] = round(row.pop(_READY_AT) - started_s, 1)
    return row


async def _take_over(url: str, count: int, bars: int) -> dict[str, float]:
    """Take everything over in this process, and return the row."""
    clock, health = SystemClock(), Health()
    settings = Settings(
        run_mode=MODE,
        bus=BusSettings(url=url),
        redis=RedisSettings(url="none://"),
        engine=EngineSettings(kind="rules"),
        fusion=FusionSettings(
            group=f"rebuild-{uuid4().hex[:8]}",
            intervals=["1m"],
            window_bars=_window(bars),
            epoch_slots=EPOCH_SLOTS,
            max_symbols=max(2_000, count),
        ),
    )
    worker = await make_worker(KafkaBus(settings.bus, clock), settings, clock, health)
    before_mb, started, busy_s = rss_mb(), time.perf_counter(), time.process_time()
    running = asyncio.create_task(worker.run())
    partitions, first_s = worker._rooms.partitions, None  # noqa: SLF001 - no public way tells of one partition
    while not (health.ready or running.done()):
        await asyncio.sleep(0.01)
        if first_s is None and any(map(partitions.may_decide, range(PARTITIONS))):
            first_s = time.perf_counter() - started
    if running.done():
        await running  # says why it ended
    took_s, busy_s, grown_mb = time.perf_counter() - started, time.process_time() - busy_s, rss_mb() - before_mb
    ready_at_s = time.time()
    held_bars = 0
    for book in worker._rooms.books:  # noqa: SLF001 - what a decision on each would do, without 1,000 decisions
        held_bars += len(book.bars["1m"])
        await worker._rooms.prompts.build(worker._rooms.prompts.plan(book, "1m", "fast"))  # noqa: SLF001
    assert len(worker._rooms.books) == count  # noqa: SLF001
    with_prompts_mb = rss_mb() - before_mb
    worker.stop()
    await running
    return {
        "symbols": count,
        "bars held": held_bars,
        "seconds": round(took_s, 1),
        "seconds to the first partition": round(took_s if first_s is None else first_s, 1),
        "of it on the processor": round(busy_s, 1),
        "records/s": round(held_bars / took_s),
        "MB rebuilt": round(grown_mb),
        "MB with prompts built": round(with_prompts_mb),
        _READY_AT: ready_at_s,
    }


def _window(bars: int) -> int:
    """Return the window with which a book holds `bars` bars: it keeps two epochs more than a prompt shows."""
    return bars - 2 * EPOCH_SLOTS


if __name__ == "__main__":
    if sys.argv[1:2] == ["--take-over"]:
        logs.configure(LogSettings(level="error"), service="benchmark")
        memory_tuning.freeze()
        print(orjson.dumps(asyncio.run(_take_over(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))).decode())
    else:
        sys.exit(run_alone("rebuild", __doc__, measure))
