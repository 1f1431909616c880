"""What SGLang's priority scheduling does for decisions beside slices of pre-warming: two servers by turns, one of them started with it.

Decisions arrive at a stated rate behind cached prefixes of 32K, at most three at once; after each a slice of the symbol's next prefix is
sent, one at a time: none, as the worker sends them (while no decision is under way), or at once. All calls are those of the worker's own
client, which sends `priority` to the server that takes it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args
from uuid import uuid4

import numpy as np

from benchmarks.gpu.client import random_ids
from benchmarks.gpu.measure import Results
from benchmarks.gpu.verdicts import shares
from services.core.clock import SystemClock
from services.fusion.prompt.traffic import EngineTraffic
from services.inference.engine import EngineError, EngineRequest, Sampling, TokenIds
from services.inference.sglang_client import SGLangEngine

Slices = Literal["none", "waiting", "free"]
Kind = Literal["flash", "fast"]

SYMBOLS: Final = 4
PERMITS: Final = 3
PREFIX_TOKENS: Final = 32_768
NEXT_TOKENS: Final = 16_384
"""Of the next epoch's prefix, sent ahead already: half of it, as on average."""
SLICE_TOKENS: Final = 560
"""A page of 16 rows."""
NEW_TOKENS: Final = 260
ANSWER_TOKENS: Final = 15
"""`buy 62 5 2 -12 25` and its end, by the shipped tokenizer."""
LABELS: Final = np.array([100, 200, 300, 400], np.int32)
RATES: Final[dict[Kind, float]] = {"flash": 12.0, "fast": 6.0}
"""Decisions a second over all symbols: the highest of the targets."""
LONGEST_WAIT_S: Final = 2.0
"""For a moment without decisions, as the worker's `prewarm.py` has it."""
_CLOCK: Final = SystemClock()
_LIMIT_MS: Final = 20_000


@dataclass
class Beside:
    """One server, asked at the stated rate with slices beside the decisions."""

    engine: SGLangEngine
    kind: Kind
    slices: Slices
    name: str
    """Of the stage: its random ids are its own."""
    traffic: EngineTraffic = field(default_factory=EngineTraffic)
    first_ms: list[float] = field(default_factory=list)
    """From the call to its first token."""
    decision_ms: list[float] = field(default_factory=list)
    """From the moment that the decision was due, its wait for a permit included, to its last token."""
    slice_ms: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    async def play(self, seconds: float) -> dict[str, Any]:
        """Ask for `seconds`, and return what was seen once every call has ended."""
        due: asyncio.Queue[int | None] = asyncio.Queue()
        permits, source = asyncio.Semaphore(PERMITS), random.Random(self.name)  # noqa: S311 - a workload, no secret
        sender = asyncio.create_task(self._send_slices(due))
        rate, loop = RATES[self.kind], asyncio.get_running_loop()
        at_s, asked = loop.time(), []
        for number in range(round(rate * seconds)):
            at_s += source.uniform(0.5, 1.5) / rate
            await asyncio.sleep(max(0.0, at_s - loop.time()))
            asked.append(asyncio.create_task(self._decide(number, permits, due)))
        await asyncio.gather(*asked)
        due.put_nowait(None)
        await sender
        return {
            "decisions a second": rate,
            "first_token_ms": shares(self.first_ms),
            "decision_ms": shares(self.decision_ms),
            "slices": len(self.slice_ms),
            "slice_ms": shares(self.slice_ms),
            "failed": self.failed,
        }

    async def _decide(self, number: int, permits: asyncio.Semaphore, due: asyncio.Queue[int | None]) -> None:
        began_s, symbol = time.perf_counter(), number % SYMBOLS
        async with permits:
            self.traffic.decision_begins()
            try:
                ids = np.concatenate([prefix_of(symbol), ids_of(f"{self.name} decision {number}", NEW_TOKENS)])
                sent_s = time.perf_counter()
                first_s = await decide(self.engine, self.kind, ids)
                self.first_ms.append((first_s - sent_s) * 1000)
                self.decision_ms.append((time.perf_counter() - began_s) * 1000)
            except EngineError as error:
                self.failed.append(str(error)[:200])
            finally:
                self.traffic.decision_ends()
        due.put_nowait(symbol)

    async def _send_slices(self, due: asyncio.Queue[int | None]) -> None:
        number = 0
        while (symbol := await due.get()) is not None:
            if self.slices == "none":
                continue
            if self.slices == "waiting":
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.traffic.quiet(), LONGEST_WAIT_S)
            began_s, number = time.perf_counter(), number + 1
            ids = np.concatenate([next_of(symbol), ids_of(f"{self.name} slice {number}", SLICE_TOKENS)])
            try:
                await self.engine.warm(uuid4().hex, str(symbol), ids)
                self.slice_ms.append((time.perf_counter() - began_s) * 1000)
            except EngineError as error:
                self.failed.append(f"slice: {error}"[:200])


async def decide(engine: SGLangEngine, kind: Kind, ids: TokenIds) -> float:
    """Ask for a decision as the worker does; return when its first token was there, on `time.perf_counter`."""
    sampling = Sampling(1 if kind == "flash" else ANSWER_TOKENS, ignore_eos=True)
    request = EngineRequest(uuid4().hex, "", kind, ids, sampling, _CLOCK.now_ms() + _LIMIT_MS, lambda: ("", ""), {})
    if kind == "flash":
        await engine.score(request, LABELS)
        return time.perf_counter()
    first_s = 0.0
    async with aclosing(engine.stream(request)) as chunks:
        async for chunk in chunks:
            first_s = first_s or (time.perf_counter() if chunk.text or chunk.usage else 0.0)
    return first_s


_known: Final[dict[str, TokenIds]] = {}


def ids_of(name: str, count: int) -> TokenIds:
    """Return random ids, the same for the same name."""
    return np.array(random_ids(name, count), np.int32)


def prefix_of(symbol: int) -> TokenIds:
    """Return the current prefix of a symbol."""
    return _held(f"prefix {symbol}", PREFIX_TOKENS)


def next_of(symbol: int) -> TokenIds:
    """Return the part of a symbol's next prefix that is sent ahead before anything is timed."""
    return _held(f"next {symbol}", NEXT_TOKENS)


def _held(name: str, count: int) -> TokenIds:
    if name not in _known:
        _known[name] = ids_of(name, count)
    return _known[name]


async def fill(engine: SGLangEngine) -> dict[str, Any]:
    """Have a server read all prefixes, and send each kind of call alone and three at once, so that nothing is compiled under the clock."""
    for symbol in range(SYMBOLS):
        for ids in (prefix_of(symbol), next_of(symbol)):
            await engine.warm(uuid4().hex, str(symbol), ids)
    for together in (1, PERMITS, PERMITS):
        prompts = [np.concatenate([prefix_of(number), ids_of(f"warm {together} {number}", NEW_TOKENS)]) for number in range(together)]
        await asyncio.gather(*(decide(engine, "fast", ids) for ids in prompts))
        await engine.warm(uuid4().hex, "0", np.concatenate([next_of(0), ids_of(f"warm slice {together}", SLICE_TOKENS)]))
    info = await engine.info()
    return {key: info.raw.get(key) for key in ("version", "attention_backend", "speculative_algorithm", "enable_priority_scheduling")}


async def run(urls: dict[str, str], results: Results, seconds: float, kinds: Sequence[Kind]) -> None:
    """Measure each way of sending on each server by turns, as long as time is left."""
    # One that scores asks with every call for log-probabilities, as workers in mode `flash` do.
    engines = {(name, kind): SGLangEngine(url, _CLOCK, scores=kind == "flash") for name, url in urls.items() for kind in kinds}
    try:
        for name in urls:
            results.keep(name, "server", await fill(engines[name, kinds[0]]))
        for kind in kinds:
            for slices in get_args(Slices):
                for name in urls:
                    if results.left() < seconds + 5:
                        results.keep(name, f"{kind}, slices {slices}", {"skipped": f"{results.left():.0f} s were left"})
                        continue
                    engine = engines[name, kind]
                    await engine.info()
                    await decide(engine, kind, np.concatenate([prefix_of(0), ids_of(f"first {kind} {slices}", NEW_TOKENS)]))
                    # The same ids on both servers, so that both are asked the same.
                    stage = Beside(engine, kind, slices, f"{kind} {slices}")
                    results.keep(name, f"{kind}, slices {slices}", await stage.play(seconds))
    finally:
        for engine in engines.values():
            await engine.close()


def main() -> None:
    """Measure the servers at `--plain` and `--priority`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plain", required=True, help="address of the server without priorities")
    parser.add_argument("--priority", required=True, help="address of the server with --enable-priority-scheduling")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each way of sending on each server (default: 8)")
    parser.add_argument("--kinds", nargs="+", choices=get_args(Kind), default=list(get_args(Kind)))
    arguments = parser.parse_args()
    urls = {"plain": arguments.plain, "priority": arguments.priority}
    asyncio.run(run(urls, Results(arguments.results), arguments.seconds, arguments.kinds))


if __name__ == "__main__":
    main()
