"""Ten times more bars than the engine can be asked about: how old signals are and who gets one, lanes against first in, first out.

200 symbols with prompts of 4K tokens, on the in-process bus, against the simulator of one H100 in a process of its own, at its own
pace. Its capacity is measured first, with warm prefixes and as many calls at once as both workers have. The one worker is the real
one; the other has the same book, prompts and client, and asks about each bar in its turn. In the `even` feed all symbols have bars
equally often; in the `uneven` one a tenth of the symbols has half of all bars. Each symbol starts at the beginning of an epoch and
nothing is sent ahead. A signal's age goes from the timestamp of its bar's record to the timestamp of its own.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple
from uuid import uuid4

import numpy as np

from benchmarks.feed import MARKET, MINUTE_MS, MODE, START_MS, Walk, publish_instruments, symbols
from benchmarks.harness import Measured, percentile, run_alone, say
from benchmarks.local import module
from benchmarks.plain_worker import PlainWorker
from benchmarks.prompts import window_for
from schemas import AuditRecord, Topic, decode_signal_message, topic_name
from schemas.signal import Signal
from services.core.bus import Bus, Producer, Record, TopicPartition
from services.core.bus.memory import MemoryBus
from services.core.clock import SystemClock
from services.core.fusion_settings import FusionSettings
from services.core.health import Health
from services.core.settings import EngineSettings, RedisSettings, Settings
from services.core.topic_admin import ensure_topics
from services.fusion.service import load_tokenizer, make_worker
from services.fusion.state.epochs import EpochBoundaries
from services.inference.connect import connect
from services.inference.engine import EngineRequest, Sampling, TokenIds

SYMBOLS: Final = 200
TOKENS: Final = 4_096
EPOCH_SLOTS: Final = 64
PERMITS: Final = 8
TIMES: Final = 10
VALIDITY_MS: Final = 10_000
_GROWTH: Final = 40
"""About as many bars as each symbol has in the even feed's minute."""
_SIGNALS: Final = TopicPartition(topic_name(Topic.STRATEGY_SIGNALS, MODE), 0)
_AUDIT: Final = TopicPartition(topic_name(Topic.SIGNAL_AUDIT, MODE), 0)


class Published(NamedTuple):
    """A signal: its symbol, the timestamp of its bar's record, and its own."""

    symbol: str
    record_ms: int
    signal_ms: int


class Feed:
    """Histories that end where an epoch begins, and bars after them."""

    def __init__(self, bus: Bus, producer: Producer, names: Sequence[str], history: int) -> None:
        self._bus, self._producer = bus, producer
        self._walks = [Walk(name, number) for number, name in enumerate(names)]
        base = START_MS // MINUTE_MS
        self._slots = []
        for name in names:
            shift = EpochBoundaries(name, "1m", EPOCH_SLOTS).shift
            self._slots.append(base - (base + history - 1 + shift) % EPOCH_SLOTS)
        self._history = history

    async def history(self) -> None:
        for _ in range(self._history):
            for number in range(len(self._walks)):
                await self.bar(number)

    async def bar(self, number: int) -> None:
        walk = self._walks[number]
        value = walk.bar(self._slots[number] * MINUTE_MS)
        self._slots[number] += 1
        await (await self._producer.send(MARKET, key=walk.symbol.encode(), value=value))

    async def play(self, order: Sequence[int], per_s: float) -> None:
        """Send the next bar of each symbol that `order` names, `per_s` of them a second."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        for at, number in enumerate(order):
            await asyncio.sleep(max(0.0, started + at / per_s - loop.time()))
            await self.bar(number)


async def measure(quick: bool) -> Measured:  # noqa: FBT001 - the harness calls it
    """Measure the capacity, then both workers with both feeds."""
    seconds = 10 if quick else 60
    names = symbols(SYMBOLS)
    window = window_for(TOKENS, _GROWTH / 2, load_tokenizer(EngineSettings()), names[0])
    async with module("services.inference.simulator", "--port", "0") as url:
        settings = Settings(
            run_mode=MODE,
            redis=RedisSettings(url="none://"),
            engine=EngineSettings(urls=[url]),
            fusion=FusionSettings(
                intervals=["1m"],
                window_bars=window,
                epoch_slots=EPOCH_SLOTS,
                permits=PERMITS,
                vision_wait_ms=0,
                entry_validity_ms={"1m": VALIDITY_MS},
                max_staleness_ms=VALIDITY_MS,
                flip_flop_limit=0,
                rate_limit_per_min=1_000_000,
                prewarm=False,
            ),
        )
        per_s = await capacity(settings, names, window, 5.0 if quick else 20.0)
        offered = TIMES * per_s
        say(f"the engine ends {per_s:.1f} calls/s, {PERMITS} at once; {offered:.0f} bars/s are offered")
        measured = Measured(
            rows=[],
            setting={
                "seconds": seconds,
                "symbols": SYMBOLS,
                "window_bars": window,
                "calls at once": PERMITS,
                "simulator's time scale": 1,
                "engine's capacity, calls/s": round(per_s, 1),
                "bars/s offered": round(offered, 1),
                "entry validity ms": VALIDITY_MS,
            },
        )
        for feed in ("even", "uneven"):
            order = _order(feed, int(offered * seconds))
            for worker, run in (("lanes", lanes), ("first in, first out", first_in_first_out)):
                published, outcomes = await run(settings, names, window, order, offered)
                row = {"feed": feed, "worker": worker, **figures(published, names), "bars": len(order), **outcomes}
                measured.rows.append(row)
                say(str(row))
    return measured


def _order(feed: str, count: int) -> list[int]:
    if feed == "even":
        return [at % SYMBOLS for at in range(count)]
    hot = SYMBOLS // 10
    weights = np.array([0.5 / hot] * hot + [0.5 / (SYMBOLS - hot)] * (SYMBOLS - hot))
    drawn: list[int] = np.random.default_rng(1).choice(SYMBOLS, size=count, p=weights).tolist()
    return drawn


async def site(names: Sequence[str], history: int) -> tuple[MemoryBus, Feed]:
    """Return a bus with the symbols' histories, and what plays on."""
    bus = MemoryBus(SystemClock())
    await ensure_topics(await bus.admin(), MODE, partitions=1)
    await publish_instruments(bus, names)
    feed = Feed(bus, await bus.producer(client_id="benchmark"), names, history)
    await feed.history()
    return bus, feed


async def capacity(settings: Settings, names: Sequence[str], window: int, seconds: float) -> float:
    """Warm every symbol's prefix, then return the calls that end in a second when as many as there are permits always run."""
    clock = SystemClock()
    bus, _ = await site(names, window + EPOCH_SLOTS)
    engine = connect(settings.engine, clock)
    plain = PlainWorker(bus, settings, clock, engine, load_tokenizer(settings.engine))
    running = asyncio.create_task(plain.run())
    await plain.ready.wait()
    prompts: list[TokenIds] = []
    for name in names:
        book = plain.books.get(name)
        assert book is not None
        plan = plain.prompts.plan(book, "1m", "fast")
        prompts.append((await plain.prompts.build(plan)).ids)
        await engine.warm(uuid4().hex, name, prompts[-1])
    running.cancel()
    say(f"prompts of {np.median([ids.size for ids in prompts]):.0f} tokens, all warm")
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    ended = 0

    async def caller(number: int) -> None:
        nonlocal ended
        while loop.time() < until:
            ids = prompts[number % len(prompts)]
            number += PERMITS
            request = EngineRequest(uuid4().hex, "any", "fast", ids, Sampling(160), clock.now_ms() + 60_000, lambda: ("", ""), {})
            async with aclosing(engine.stream(request)) as chunks:
                async for _ in chunks:
                    pass
            ended += loop.time() < until

    await asyncio.gather(*(caller(number) for number in range(PERMITS)))
    await engine.close()
    return ended / seconds


async def lanes(
    settings: Settings, names: Sequence[str], window: int, order: Sequence[int], per_s: float
) -> tuple[list[Published], dict[str, int]]:
    """Run the real worker."""
    bus, feed = await site(names, window + EPOCH_SLOTS)
    clock, health = SystemClock(), Health()
    worker = await make_worker(bus, settings, clock, health)
    running = asyncio.create_task(worker.run())
    while not (running.done() or (health.ready and worker.caught_up)):
        await asyncio.sleep(0.01)
    if running.done():
        await running  # says why it ended
    await feed.play(order, per_s)
    ended_ms = clock.now_ms()
    worker.stop()
    await running
    asked_ms: dict[object, int] = {}
    outcomes: Counter[str] = Counter()
    for record in await _all(bus, _AUDIT):
        audit = AuditRecord.decode(record.value or b"")
        asked_ms[audit.trigger_id] = audit.trigger.ts_ms
        if record.timestamp_ms <= ended_ms:
            outcomes[audit.outcome.value] += 1
    published = []
    for record in await _all(bus, _SIGNALS):
        signal = decode_signal_message(record.value or b"")
        if isinstance(signal, Signal) and record.timestamp_ms <= ended_ms:
            published.append(Published(signal.symbol, asked_ms[signal.trigger_id], record.timestamp_ms))
    told = {name: outcomes.pop(name, 0) for name in ("conflated", "stale")}
    return published, {
        **told,
        "other outcomes": sum(outcomes.values()) - outcomes["published"],
        "in line at the end": len(order) - told["conflated"] - told["stale"] - sum(outcomes.values()),
    }


async def first_in_first_out(
    settings: Settings, names: Sequence[str], window: int, order: Sequence[int], per_s: float
) -> tuple[list[Published], dict[str, int]]:
    """Run the plain worker."""
    bus, feed = await site(names, window + EPOCH_SLOTS)
    clock = SystemClock()
    engine = connect(settings.engine, clock)
    worker = PlainWorker(bus, settings, clock, engine, load_tokenizer(settings.engine))
    running = asyncio.create_task(worker.run())
    await worker.ready.wait()
    await feed.play(order, per_s)
    published = [Published(*one) for one in worker.published]
    waiting = worker.waiting
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await engine.close()
    return published, {"conflated": 0, "stale": 0, "other outcomes": 0, "in line at the end": waiting}


async def _all(bus: Bus, partition: TopicPartition) -> list[Record]:
    reader = await bus.reader(client_id="benchmark")
    end = (await reader.end_offsets([partition]))[partition]
    await reader.read({partition: 0})
    records: list[Record] = []
    while len(records) < end:
        records.extend(await reader.poll(timeout_ms=100))
    return records


def figures(published: Sequence[Published], names: Sequence[str]) -> dict[str, Any]:
    """Return how many signals there were, how old, and how they were shared out."""
    ages_s = [(one.signal_ms - one.record_ms) / 1000 for one in published] or [0.0]
    by_symbol = Counter(one.symbol for one in published)
    shares = np.array([by_symbol[name] for name in names], dtype=np.float64)
    return {
        "published": len(published),
        "age 50 % s": round(percentile(ages_s, 0.5), 2),
        "age 95 % s": round(percentile(ages_s, 0.95), 2),
        "Jain's index": round(float(shares.sum() ** 2 / (len(shares) * max(1.0, float((shares**2).sum())))), 3),
        "fewest a symbol": int(shares.min()),
        "most a symbol": int(shares.max()),
    }


if __name__ == "__main__":
    sys.exit(run_alone("overload", __doc__, measure))
