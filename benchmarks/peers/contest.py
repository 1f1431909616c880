"""One worker's run through all phases, the same for each: a cold engine, a warm one, a backlog of records, a kill, ten times the load."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.feed import symbols
from benchmarks.harness import say
from benchmarks.local import kafka, module
from benchmarks.peers import site
from benchmarks.peers.catalogue import BARE, WORKERS
from benchmarks.peers.figures import Row, answers, in_vain
from benchmarks.peers.plan import BACKLOG, COLD, COLD_RUSH, EPOCH_SLOTS, KILL, TIMES, VALIDITY_MS, WARM, WARM_RUSH, Plan
from benchmarks.peers.process import Worker
from benchmarks.peers.site import PARTITIONS, Feed, Results

_GRACE_S: Final = 6.0
"""How long signals are waited for once the last bar of a phase has been appended."""
_READY_S: Final = 120.0
_ROUND_S: Final = 5.0
"""How long one bar on each partition is waited for before the next: a worker that starts answers the first ones late."""
_BACKLOG_S: Final = 120.0
_BRIEF_S: Final = 10.0
"""A shorter time is taken twice, since others' work on the machine weighs in it."""
_KILLED_AFTER_S: Final = 5.0


class Stage(NamedTuple):
    """A worker that runs, on a broker and an engine of its own, with what feeds it and what it has published."""

    worker: Worker
    feed: Feed
    results: Results


async def contest(name: str, plan: Plan, content: Mapping[str, str], folder: Path) -> list[Row]:
    """Return a row of figures for each phase; raise RuntimeError when the worker cannot be run."""
    rows: list[Row] = []
    if name == BARE.name:
        async with running(name, plan, content, folder) as stage:
            return [await _backlog(stage)]
    async with running(name, plan, content, folder) as stage:
        rows.append(await _play(stage, COLD, plan.round))
        rows.append(await _play(stage, WARM, plan.round))
        rows.append(await _backlog(stage))
        rows.append(_said(stage.worker, KILL, await killed(stage, 2 * _GRACE_S)))
        await ready(stage)
        rows.append(await _play(stage, WARM_RUSH, plan.rush, times=TIMES))
    async with running(name, plan, content, folder) as stage:
        rows.append(await _play(stage, COLD_RUSH, plan.rush, times=TIMES))
    return rows


@asynccontextmanager
async def running(name: str, plan: Plan, content: Mapping[str, str], folder: Path, kind: type[Worker] = Worker) -> AsyncIterator[Stage]:
    """Run a worker, of the class `kind`, that has answered on each partition; its engine's cache was empty when it started."""
    async with AsyncExitStack() as opened:
        server = await opened.enter_async_context(kafka(PARTITIONS))
        engine_url = await opened.enter_async_context(module("benchmarks.peers.simulator"))
        names = symbols(plan.symbols)
        bus = await site.prepare(server.url, names)
        producer = await bus.producer(client_id="benchmark")
        opened.push_async_callback(producer.close)
        feed = Feed(producer, server.bootstrap, names, plan.window_bars + EPOCH_SLOTS, EPOCH_SLOTS)
        await feed.history()
        results = await Results.open(server.bootstrap)
        opened.push_async_callback(_cancelled, asyncio.create_task(results.follow()))
        worker = kind(name, server.bootstrap, engine_url, folder, plan, site.texts(folder, dict(content)), int(time.time() * 1000))
        if name in WORKERS and WORKERS[name].seeded:
            await site.commit_ends(server.bootstrap, worker.group)
        opened.push_async_callback(worker.kill)
        await worker.start()
        stage = Stage(worker, feed, results)
        await ready(stage)
        yield stage


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def ready(stage: Stage) -> None:
    """Append a bar on each partition, again and again, until all of a round are answered in time: every process has its partitions."""
    worker, feed, results = stage
    until = time.monotonic() + _READY_S
    while time.monotonic() < until:
        wanted = {one.bar for one in await feed.closing()}
        await results.until(lambda wanted=wanted: wanted <= results.ended, _ROUND_S)
        if wanted <= {one.bar for one in results.out if one.age_ms <= VALIDITY_MS}:
            return
        worker.check()
    raise RuntimeError(f"{worker.name} did not answer a bar on each partition in time within {_READY_S:.0f} s")


async def _play(stage: Stage, phase: str, order: Sequence[int], *, times: int = 1) -> Row:
    worker, feed, results = stage
    sent = await feed.play(order, times * worker.plan.per_s)
    wanted = {one.bar for one in sent}
    ended_ms = sent[-1].record_ms
    await results.until(lambda: wanted <= results.ended, _GRACE_S)
    worker.check()
    out = [one for one in results.out if one.bar in wanted]
    audits = [one for one in results.audits if sent[0].record_ms <= one.trigger.ts_ms <= ended_ms]
    return _said(worker, phase, answers(sent, out, ended_ms) | in_vain(audits, out))


async def _backlog(stage: Stage) -> Row:
    """Return the records a second that the worker takes in, from the time that it takes longer with a backlog than without."""
    count = stage.worker.plan.backlog
    without_s = min([await _catch_up(stage, 0) for _ in range(3)])
    with_s = await _catch_up(stage, count)
    if with_s < _BRIEF_S:
        with_s = min(with_s, await _catch_up(stage, count))
    return _said(stage.worker, BACKLOG, {"records/s": round(count / max(0.001, with_s - without_s)) if with_s < inf else None})


async def _catch_up(stage: Stage, count: int) -> float:
    """Return the seconds in which a worker that stood still has read `count` forming bars and answered a closed bar on each partition.

    They are infinite when it took longer than the benchmark waits.
    """
    worker, feed, results = stage
    records = feed.forming(count)
    with worker.stopped():
        await feed.append(records)
        wanted = {one.bar for one in await feed.closing()}
        began = time.monotonic()
    answered = await results.until(lambda: wanted <= results.ended, _BACKLOG_S)
    worker.check()
    return time.monotonic() - began if answered else inf


async def killed(stage: Stage, patience_s: float) -> Row:
    """Kill the worker in the middle of a round, start it again, and count what is lost and what is there twice.

    Bars are waited for until `patience_s` seconds after the last one. `first timely s` is None when no signal was in time.
    """
    worker, feed, results = stage
    plan = worker.plan
    before = len(results.out)
    order = [at % plan.symbols for at in range(int(plan.per_s * 4 * _KILLED_AFTER_S))]
    playing = asyncio.create_task(feed.play(order, plan.per_s))
    await asyncio.sleep(_KILLED_AFTER_S)
    await worker.kill()
    killed_ms = int(time.time() * 1000)
    await worker.start()
    sent = await playing
    wanted = {one.bar for one in sent}
    await results.until(lambda: wanted <= results.ended, patience_s)
    worker.check()
    since = results.out[before:]
    counted = Counter(one.bar for one in since)
    on_time = [one for one in since if one.age_ms <= VALIDITY_MS]
    timely = [one.signal_ms for one in on_time if one.record_ms > killed_ms]
    row: dict[str, Any] = {
        "bars": len(sent),
        "on time": len(wanted & {one.bar for one in on_time}),
        "lost": len(wanted - results.ended),
        "twice": sum(counted[bar] > 1 for bar in wanted),
        "first timely s": round((min(timely) - killed_ms) / 1000, 1) if timely else None,
    }
    unanswered = (wanted - counted.keys()) & results.ended
    if results.audits:
        row["unanswered"] = f"{len(unanswered)} audited" if unanswered else "none"
    return row


def _said(worker: Worker, phase: str, figures: Row) -> Row:
    row = {"worker": worker.name, "phase": phase, **figures}
    say(str(row))
    return row
