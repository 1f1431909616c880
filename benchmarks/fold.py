"""Records a second that a fusion worker decodes and folds from Kafka, against a bare loop that only decodes them.

The worker is the real one, in its group, with watermarks and accounts; no bar triggers, so that what is measured ends with the fold.
The bare loop is aiokafka's `getmany` and pydantic's `model_validate_json`, with nothing around them. Both read the same records of
the same local broker, by turns, in one process with the garbage collector as services set it (`services/core/memory_tuning.py`); the
ratio is the median over the rounds. The clock runs from the first batch on, so joining the group is not in it.

Most records are updates of a forming bar, as in a live market. Three quarters of the bare loop's time is validation, which the worker
runs as well. It makes fewer objects of a record than the client does (`services/core/bus/kafka_reader.py`), and spends that time, and
the 0.2 of the target, on its checks and its books (`Intake.fold`). With many symbols the books leave the processor's cache, the more so
when other processes share it.

Two rows have no target. A log of closed bars alone: each is appended to a dozen packed columns, which an update is not; taking over
folds such bars. And closed bars that trigger, as they do by default: when history is read as fast as the broker returns it, nearly
every trigger is replaced in its lane by the next bar's, and each still ends in an audit record of its own, which takes many times as
long as folding its bar. A measurement of a worker with default settings over stored bars shows that pace, not the fold's.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NamedTuple
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.feed import MARKET, MODE, UPDATES, load, minutes, publish_instruments, symbols
from benchmarks.harness import Measured, Target, run_alone, say
from benchmarks.local import kafka
from schemas import MarketFeatures
from services.core import memory_tuning
from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.fusion_settings import FusionSettings
from services.core.health import Health
from services.core.settings import BusSettings, EngineSettings, RedisSettings, Settings
from services.fusion.service import make_worker

CASES: Final = ((5, UPDATES, False), (200, UPDATES, False), (200, 0, False), (200, UPDATES, True))
"""Symbols, updates of each bar before it closes, and whether closed bars trigger."""
PARTITIONS: Final = 1
"""One, so that the pace is one of folding: several are taken over one after another, while the first are being read."""
WANTED: Final = 0.8
_BATCH: Final = 500
"""Records that both take at once: the worker's own choice."""
_LOOK_S: Final = 0.002


class Pace(NamedTuple):
    """Records, and the seconds that they took by the clock and of the processor, after the first batch."""

    records: int
    seconds: float
    busy_s: float

    @property
    def per_s(self) -> float:
        """Return records a second."""
        return self.records / self.seconds

    @property
    def busy_us(self) -> float:
        """Return microseconds of the processor a record."""
        return 1e6 * self.busy_s / self.records


async def measure(quick: bool) -> Measured:  # noqa: FBT001 - the harness calls it
    """Measure with few symbols and with many."""
    wanted, rounds = (24_000, 3) if quick else (120_000, 7)
    measured = Measured(
        rows=[],
        setting={
            "partitions": PARTITIONS,
            "rounds": rounds,
            "target": "the worker reaches at least 0.8 of the bare loop's pace",
        },
    )
    memory_tuning.freeze()
    for count, updates, triggers in CASES:
        async with kafka(PARTITIONS) as server:
            names = symbols(count)
            settings = BusSettings(url=server.url)
            await publish_instruments(KafkaBus(settings, SystemClock()), names)
            total, size = await load(server.bootstrap, minutes(names, wanted // count // (updates + 1), updates=updates), PARTITIONS)
            say(f"{total} records of {size:.0f} bytes on average, {count} symbols, {updates} updates a bar")
            paces: dict[str, list[Pace]] = {"worker": [], "bare": []}
            turns: list[tuple[str, Callable[[BusSettings, int], Awaitable[Pace]]]] = [
                ("bare", bare),
                ("worker", partial(worker, triggers=triggers)),
            ]
            for turn in range(rounds + 1):
                for name, run in turns if turn % 2 else reversed(turns):
                    pace = await run(settings, total)
                    if turn:  # the first round warms caches up
                        paces[name].append(pace)
                if turn:
                    say(f"round {turn}: bare {paces['bare'][-1].per_s:,.0f}/s, worker {paces['worker'][-1].per_s:,.0f}/s")
        ratio = statistics.median(w.per_s / b.per_s for w, b in zip(paces["worker"], paces["bare"], strict=True))
        measured.rows.append(
            {
                "symbols": count,
                "updates a bar": updates,
                "bars trigger": "yes" if triggers else "no",
                "records": total,
                "bytes a record": round(size),
                "worker records/s": round(statistics.median(pace.per_s for pace in paces["worker"])),
                "bare records/s": round(statistics.median(pace.per_s for pace in paces["bare"])),
                "ratio": round(ratio, 3),
                "worker processor µs a record": round(statistics.median(pace.busy_us for pace in paces["worker"]), 1),
                "bare processor µs a record": round(statistics.median(pace.busy_us for pace in paces["bare"]), 1),
            }
        )
        if updates and not triggers:
            measured.targets.append(
                Target(f"worker's pace over the bare loop's, {count} symbols", WANTED, at_least=True, got=round(ratio, 3))
            )
    return measured


async def bare(settings: BusSettings, total: int) -> Pace:
    """Read and validate every record."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.url.removeprefix("kafka://"), auto_offset_reset="earliest", fetch_max_wait_ms=100
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(MARKET, partition) for partition in range(PARTITIONS)])
        await consumer.seek_to_beginning()
        done, first, started, busy_s = 0, 0, 0.0, 0.0
        while done < total:
            for records in (await consumer.getmany(timeout_ms=100, max_records=_BATCH)).values():
                for record in records:
                    MarketFeatures.model_validate_json(record.value)
                done += len(records)
            if done and not first:
                first, started, busy_s = done, time.perf_counter(), time.process_time()
        return Pace(done - first, time.perf_counter() - started, time.process_time() - busy_s)
    finally:
        await consumer.stop()


async def worker(settings: BusSettings, total: int, max_symbols: int = 2_000, *, triggers: bool = False) -> Pace:
    """Have a fusion worker of a new group read everything; with `triggers` each closed bar makes one."""
    clock = SystemClock()
    tree = Settings(
        run_mode=MODE,
        bus=settings,
        redis=RedisSettings(url="none://"),
        engine=EngineSettings(kind="rules"),
        fusion=FusionSettings(
            group=f"fold-{uuid4().hex[:8]}", start_from="earliest", trigger_on_closed_bar=triggers, max_symbols=max_symbols
        ),
    )
    fusion = await make_worker(KafkaBus(settings, clock), tree, clock, Health())
    running = asyncio.create_task(fusion.run())
    folded, first, started, busy_s = fusion.accounts.records, 0, 0.0, 0.0
    while (done := sum(folded.values())) < total and not running.done():
        if done and not first:
            first, started, busy_s = done, time.perf_counter(), time.process_time()
        await asyncio.sleep(_LOOK_S)
    pace = Pace(total - first, time.perf_counter() - started, time.process_time() - busy_s)
    fusion.stop()
    await running
    assert folded["folded"] == total, fusion.accounts.summary()
    return pace


if __name__ == "__main__":
    sys.exit(run_alone("fold", __doc__, measure))
