"""One worker's run through all phases, the same for each: a cold engine, a warm one, a burst of records, a kill, ten times the load."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from benchmarks.feed import MARKET, symbols
from benchmarks.harness import percentile, say
from benchmarks.local import kafka, module
from benchmarks.peers import site
from benchmarks.peers.catalogue import OURS, PEERS, python_of
from benchmarks.peers.site import PARTITIONS, Feed, Out, Results, Sent
from schemas import AuditRecord, Outcome

EPOCH_SLOTS: Final = 64
CALLS: Final = 8
TIMES: Final = 10
VALIDITY_MS: Final = 3_000
"""How long a signal on a bar of 1m may be acted on unless told otherwise."""
_GRACE_S: Final = 6.0
"""How long signals are waited for once the last bar of a phase has been appended."""
_READY_S: Final = 120.0
_KILLED_AFTER_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each phase is, and how much is offered."""

    symbols: int
    window_bars: int
    per_s: float
    """Bars a second at 1x."""
    many_s: float
    burst: int

    @property
    def round(self) -> list[int]:
        """Return every symbol once."""
        return list(range(self.symbols))

    @property
    def rush(self) -> list[int]:
        """Return the symbols by turns, for the time at 10x."""
        return [at % self.symbols for at in range(int(TIMES * self.per_s * self.many_s))]


@dataclass
class Worker:
    """The processes of one worker on one broker."""

    name: str
    bootstrap: str
    engine_url: str
    folder: Path
    plan: Plan
    texts: Path
    live_from_ms: int
    group: str = field(default_factory=lambda: f"peer-{uuid4().hex[:8]}")
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def start(self) -> None:
        """Start every process."""
        for command, environment in self._commands():
            log = (self.folder / f"{self.name.replace(' ', '-')}.log").open("ab")
            self.processes.append(
                await asyncio.create_subprocess_exec(*command, env=os.environ | environment, stdout=log, stderr=log, start_new_session=True)
            )

    async def kill(self) -> None:
        """Kill every process as `kill -9` does."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        self.processes.clear()

    def check(self) -> None:
        """Raise RuntimeError when a process has ended by itself."""
        for process in self.processes:
            if process.returncode is not None:
                log = (self.folder / f"{self.name.replace(' ', '-')}.log").read_text()[-2_000:]
                raise RuntimeError(f"{self.name} ended by itself ({process.returncode}):\n{log}")

    def _commands(self) -> list[tuple[list[str], dict[str, str]]]:
        if self.name == OURS:
            return [([sys.executable, "-m", "services.fusion", "--config", str(self.config())], {})]
        peer = PEERS[self.name]
        python = python_of(peer)
        states = [self.folder / f"state-{self.group}-{number}" for number in range(peer.processes)]
        for state in states:
            if not state.exists():
                state.mkdir()
                if peer.module == "bytewax.run":
                    subprocess.run([python, "-m", "bytewax.recovery", state, "1"], check=True)  # noqa: S603 - a peer's own tool
        growth = EPOCH_SLOTS if peer.grows else 0
        environment = {
            "PEER_BOOTSTRAP": self.bootstrap,
            "PEER_MARKET_TOPIC": MARKET,
            "PEER_PARTITIONS": str(PARTITIONS),
            "PEER_SIGNALS_TOPIC": site.PEER_SIGNALS,
            "PEER_GROUP": self.group,
            "PEER_LIVE_FROM_MS": str(self.live_from_ms),
            "PEER_CALLS": str(max(1, CALLS // peer.processes)),
            "PEER_WINDOW_BARS": str(self.plan.window_bars),
            "PEER_GROWTH_BARS": str(growth),
            "PEER_TEXTS_FILE": str(self.texts),
            "PEER_ENGINE_URL": self.engine_url,
            "PYTHONPATH": str(Path(__file__).parent / "clients"),
        }
        return [(peer.command(python, state), environment | {"PEER_STATE_FOLDER": str(state)}) for state in states]

    def config(self) -> Path:
        """Return the settings file of our worker."""
        file = self.folder / "aquiline.toml"
        file.write_text(
            f"""run_mode = "shadow"
[bus]
url = "kafka://{self.bootstrap}"
instance_id = "{self.group}"
[redis]
url = "none://"
[engine]
urls = ["{self.engine_url}"]
[http]
port = 0
[log]
level = "warning"
[fusion]
group = "{self.group}"
intervals = ["1m"]
window_bars = {self.plan.window_bars}
epoch_slots = {EPOCH_SLOTS}
permits = {CALLS}
rationale = "none"
flip_flop_limit = 0
rate_limit_per_min = 1000000
"""
        )
        return file


async def contest(name: str, plan: Plan, content: Mapping[str, str], folder: Path) -> list[dict[str, Any]]:
    """Return a row of figures for each phase."""
    rows: list[dict[str, Any]] = []
    for phases in (_steady, _cold_rush):
        async with AsyncExitStack() as opened:
            server = await opened.enter_async_context(kafka(PARTITIONS))
            engine_url = await opened.enter_async_context(module("benchmarks.peers.simulator"))
            names = symbols(plan.symbols)
            bus = await site.prepare(server.url, names)
            feed = Feed(await bus.producer(client_id="benchmark"), server.bootstrap, names, plan.window_bars + EPOCH_SLOTS, EPOCH_SLOTS)
            await feed.history()
            results = await Results.open(server.bootstrap)
            opened.push_async_callback(bus.close)
            opened.push_async_callback(cancelled, asyncio.create_task(results.follow()))
            worker = Worker(name, server.bootstrap, engine_url, folder, plan, site.texts(folder, dict(content)), int(time.time() * 1000))
            if name in PEERS and PEERS[name].seeded:
                await site.commit_ends(server.bootstrap, worker.group)
            opened.push_async_callback(worker.kill)
            await worker.start()
            await ready(worker, feed, results)
            await site.flush(engine_url)
            rows += await phases(worker, feed, results)
    return rows


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel `task` and wait for its end."""
    task.cancel()
    await asyncio.wait([task])


async def _steady(worker: Worker, feed: Feed, results: Results) -> list[dict[str, Any]]:
    plan = worker.plan
    rows = [await _play(worker, feed, results, phase, plan.round) for phase in ("1x cold", "1x warm")]
    rows[-1] |= {"records/s": await _burst(worker, feed, results)}
    rows.append(await _kill(worker, feed, results))
    await ready(worker, feed, results)
    rows.append(await _play(worker, feed, results, "10x warm", plan.rush, times=TIMES))
    return rows


async def _cold_rush(worker: Worker, feed: Feed, results: Results) -> list[dict[str, Any]]:
    return [await _play(worker, feed, results, "10x cold", worker.plan.rush, times=TIMES)]


async def ready(worker: Worker, feed: Feed, results: Results) -> None:
    """Append a bar of the first symbol now and then, until one is answered in time."""
    began = len(results.out)
    for _ in range(int(_READY_S)):
        await feed.bar(0)
        if await results.until(lambda: any(one.age_ms <= VALIDITY_MS for one in results.out[began:]), 1.0):
            await asyncio.sleep(1.0)
            return
        worker.check()
    raise RuntimeError(f"{worker.name} published nothing within {_READY_S:.0f} s")


async def _play(worker: Worker, feed: Feed, results: Results, phase: str, order: Sequence[int], *, times: int = 1) -> dict[str, Any]:
    sent = await feed.play(order, times * worker.plan.per_s)
    wanted = {(one.symbol, one.ts_close_ms) for one in sent}
    ended_ms = sent[-1].record_ms

    def all_out() -> bool:
        return len({(one.symbol, one.ts_close_ms) for one in results.out} & wanted) == len(wanted)

    await results.until(all_out, _GRACE_S)
    worker.check()
    out = [one for one in results.out if (one.symbol, one.ts_close_ms) in wanted]
    row = {"worker": worker.name, "phase": phase, **figures(sent, out, ended_ms)}
    row |= _unanswered([one for one in results.audits if sent[0].record_ms <= one.trigger.ts_ms <= ended_ms], out)
    say(str(row))
    return row


def figures(sent: Sequence[Sent], out: Sequence[Out], ended_ms: int) -> dict[str, Any]:
    """Return how many signals there were while bars were appended, how old, and what the engine had cached."""
    seconds = (ended_ms - sent[0].record_ms) / 1000
    while_played = [one for one in out if one.signal_ms <= ended_ms]
    ages_s = [one.age_ms / 1000 for one in out]
    prompt_tokens = sum(one.prompt_tokens for one in out)
    return {
        "bars": len(sent),
        "decisions/s": round(len(while_played) / seconds, 1),
        "on time": len({(one.symbol, one.ts_close_ms) for one in out if one.age_ms <= VALIDITY_MS}),
        "late": sum(one.age_ms > VALIDITY_MS for one in out),
        "age 50 % s": round(percentile(ages_s, 0.5), 2) if out else None,
        "age 95 % s": round(percentile(ages_s, 0.95), 2) if out else None,
        "cached": round(sum(one.cached_tokens for one in out) / max(1, prompt_tokens), 3),
        "tokens a prompt": round(prompt_tokens / max(1, len(out))),
    }


def _unanswered(audits: Sequence[AuditRecord], out: Sequence[Out]) -> dict[str, Any]:
    """Return what the audit says of bars without a signal; peers have none, and their late signals were asked for in vain."""
    if not audits:
        return {"timed out %": round(100 * sum(one.age_ms > VALIDITY_MS for one in out) / max(1, len(out)), 1)}
    asked = [one for one in audits if one.prompt_tokens is not None]
    in_vain = [one for one in asked if one.outcome is not Outcome.PUBLISHED]
    reasons = Counter(f"{one.outcome.value} {one.reason}" for one in audits if one.outcome is not Outcome.PUBLISHED)
    return {
        "timed out %": round(100 * len(in_vain) / max(1, len(asked)), 1),
        "unanswered": ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "none",
    }


async def _burst(worker: Worker, feed: Feed, results: Results) -> int:
    """Return the records a second that the worker takes in: a burst of forming bars, and then a bar that it is asked about."""
    began = await feed.forming(worker.plan.burst)
    last = await feed.bar(0)
    wanted = (last.symbol, last.ts_close_ms)
    if not await results.until(lambda: any((one.symbol, one.ts_close_ms) == wanted for one in results.out), 60.0):
        return 0
    return round(worker.plan.burst / (time.monotonic() - began))


async def _kill(worker: Worker, feed: Feed, results: Results) -> dict[str, Any]:
    """Kill the worker in the middle of a round, start it again, and count what is lost and what is there twice."""
    plan = worker.plan
    before = len(results.out)
    order = [at % plan.symbols for at in range(int(plan.per_s * 4 * _KILLED_AFTER_S))]
    playing = asyncio.create_task(feed.play(order, plan.per_s))
    await asyncio.sleep(_KILLED_AFTER_S)
    await worker.kill()
    killed_ms = int(time.time() * 1000)
    await worker.start()
    sent = await playing
    wanted = {(one.symbol, one.ts_close_ms) for one in sent}
    await results.until(lambda: wanted <= {(one.symbol, one.ts_close_ms) for one in results.out}, 2 * _GRACE_S)
    since = results.out[before:]
    counted = Counter((one.symbol, one.ts_close_ms) for one in since)
    on_time = [one for one in since if one.age_ms <= VALIDITY_MS]
    timely = [one.signal_ms for one in on_time if one.record_ms > killed_ms]
    row = {
        "worker": worker.name,
        "phase": "kill -9",
        "bars": len(sent),
        "on time": len(wanted & {(one.symbol, one.ts_close_ms) for one in on_time}),
        "lost": len(wanted - counted.keys()),
        "twice": sum(counted[one] > 1 for one in wanted),
        "first timely s": round((min(timely) - killed_ms) / 1000, 1) if timely else None,
    }
    audited = {(one.symbol, one.trigger.ts_event_ms) for one in results.audits}
    if audited:
        row["lost"] = len(wanted - counted.keys() - audited)
        row["unanswered"] = f"{len((wanted - counted.keys()) & audited)} audited"
    say(str(row))
    return row
