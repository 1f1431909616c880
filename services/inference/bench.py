"""Measures any running engine as a worker uses it: first token cold and cached, step time, one-token actions, decisions at once.

Prompts are made-up bars behind a prefix that was sent before; each call's last lines are new. The figures hold what the network and this
client add.
"""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from rich.table import Table

from services.core.clock import SystemClock
from services.core.tokenizer import Tokenizer
from services.inference.engine import Engine, EngineRequest, Sampling, TokenIds, Usage

NEW_TOKENS: Final = 64
"""New tokens of a call behind its cached prefix."""
_STEP_TOKENS: Final = 32
_LIMIT_MS: Final = 300_000
_LABELS: Final = ("buy", "sell", "exit", "hold", "abstain")
_FACTS: Final = "close=101.25 atr=1.5 rsi=61 ema_fast=101 ema_slow=100\n"
_SYSTEM: Final = "You decide on one instrument. Answer with JSON.\n"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement; medians over its calls. None where the engine does not say or cannot do it."""

    what: str
    at_once: int
    calls: int
    median_ms: float
    p95_ms: float
    cached_share: float | None
    accept_length: float | None


@dataclass(frozen=True, slots=True)
class Bench:
    """All measurements of one engine."""

    engine: str
    model: str
    source: str
    prompt_tokens: int
    rounds: int
    rows: list[Row] = field(default_factory=list)

    def json(self) -> bytes:
        """Return the measurements as JSON."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


@dataclass(frozen=True, slots=True)
class _Call:
    first_ms: float
    total_ms: float
    usage: Usage

    @property
    def step_ms(self) -> float | None:
        """Return the time of one decoding step, None for an answer of one token."""
        after = self.usage.output_tokens - 1
        return (self.total_ms - self.first_ms) / after * (self.usage.accept_length or 1.0) if after > 0 else None


class _Prompts:
    """Prompts of one length: made-up bars, another history for each symbol."""

    def __init__(self, tokenizer: Tokenizer, tokens: int) -> None:
        self._tokenizer = tokenizer
        self._tokens = tokens
        self._source = np.random.default_rng()

    def _bars(self, tokens: int) -> tuple[str, TokenIds]:
        lines: list[str] = []
        count = 0
        while count < tokens:
            open_, *offsets = self._source.integers([10_000, -99, -99, -99, 10], [99_999, 99, 99, 99, 99])
            lines.append(f"{open_ / 100:.2f} {offsets[0]:+05d} {offsets[1]:+05d} {offsets[2]:+05d} {offsets[3]}e3\n")
            count += self._tokenizer.encode(lines[-1]).size
        text = "".join(lines)
        return text, self._tokenizer.encode(text)[:tokens]

    def prefix(self) -> tuple[str, TokenIds]:
        """Return a history that was never sent."""
        return self._bars(self._tokens - NEW_TOKENS)

    def tail(self) -> tuple[str, TokenIds]:
        """Return last lines that were never sent."""
        facts = self._tokenizer.encode(_FACTS)
        text, ids = self._bars(max(1, NEW_TOKENS - facts.size))
        return text + _FACTS, np.concatenate([ids, facts])


async def measure(
    engine: Engine, tokenizer: Tokenizer, *, length: int, at_once: Sequence[int], rounds: int, decision: Sampling, say: Say
) -> Bench:
    """Return the measurements of a running engine that has nothing else to do; raise EngineError.

    `length` is the prompts' length in tokens of `tokenizer`, `decision` says how a decision is sampled.
    """
    info = await engine.info()
    bench = Bench(info.name, info.model, info.source, length, rounds)
    prompts = _Prompts(tokenizer, length)
    labels = np.array(list(dict.fromkeys(int(tokenizer.encode(word)[0]) for word in _LABELS)), np.int32)

    def add(what: str, calls: Sequence[_Call], times: Sequence[float], count: int = 1) -> None:
        ordered = sorted(times)
        shares = [call.usage.cached_tokens / call.usage.prompt_tokens for call in calls if call.usage.cached_tokens is not None]
        accepted = [call.usage.accept_length for call in calls if call.usage.accept_length is not None]
        row = Row(
            what=what,
            at_once=count,
            calls=len(ordered),
            median_ms=round(statistics.median(ordered), 1),
            p95_ms=round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 1),
            cached_share=round(statistics.median(shares), 3) if shares else None,
            accept_length=round(statistics.median(accepted), 2) if accepted else None,
        )
        bench.rows.append(row)
        say(f"{what}, {count} at once: {row.median_ms:,.0f} ms")

    histories = [prompts.prefix() for _ in range(max(*at_once, rounds))]
    first = Sampling(1, ignore_eos=True)
    cold = [await _ask(engine, number, history, prompts.tail(), first) for number, history in enumerate(histories[:rounds])]
    add("first token, cold", cold, [call.first_ms for call in cold])
    for number, (_, ids) in enumerate(histories):
        await engine.warm(uuid.uuid4().hex, _symbol(number), ids)
    cached = [await _ask(engine, 0, histories[0], prompts.tail(), first) for _ in range(rounds)]
    add(f"first token, cached but for {NEW_TOKENS} tokens", cached, [call.first_ms for call in cached])
    stepping = [await _ask(engine, 0, histories[0], prompts.tail(), Sampling(_STEP_TOKENS, ignore_eos=True)) for _ in range(rounds)]
    if steps := [step for call in stepping if (step := call.step_ms) is not None]:
        add("decoding step", stepping, steps)
    if engine.capabilities.logprobs:
        scored = [await _score(engine, 0, histories[0], prompts.tail(), labels) for _ in range(rounds)]
        add("one-token action", scored, [call.total_ms for call in scored])
    for count in at_once:
        calls: list[_Call] = []
        for _ in range(rounds):
            together = (_ask(engine, number, histories[number], prompts.tail(), decision) for number in range(count))
            calls += await asyncio.gather(*together)
        add("decision", calls, [call.total_ms for call in calls], count)
    return bench


def table(bench: Bench) -> Table:
    """Return the measurements for people."""
    made = Table(title=f"{bench.engine}, {bench.model}, prompts of {bench.prompt_tokens:,} tokens; medians")
    made.add_column("measured")
    for column in ("at once", "calls", "ms", "p95 ms", "cached", "accepted"):
        made.add_column(column, justify="right")
    for row in bench.rows:
        cached = "" if row.cached_share is None else f"{row.cached_share:.3f}"
        accepted = "" if row.accept_length is None else f"{row.accept_length:.2f}"
        made.add_row(row.what, str(row.at_once), str(row.calls), f"{row.median_ms:,.1f}", f"{row.p95_ms:,.1f}", cached, accepted)
    return made


def plot(bench: Bench, file: Path) -> bool:
    """Draw each measurement's median with its 95th percentile; False when matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional
    except ImportError:
        return False
    figure = Figure(figsize=(8, 0.5 * len(bench.rows) + 1.5), layout="constrained")
    axes = figure.add_subplot()
    names = [f"{row.what}, {row.at_once} at once" if row.what == "decision" else row.what for row in bench.rows]
    medians = [row.median_ms for row in bench.rows]
    above: Any = [[0.0] * len(medians), [row.p95_ms - row.median_ms for row in bench.rows]]
    axes.barh(names, medians, xerr=above, capsize=3)
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds: median, and 95th percentile", title=f"{bench.engine}, {bench.model}, {bench.prompt_tokens:,} tokens")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=150)
    return True


def _symbol(number: int) -> str:
    return f"BENCH{number}"


def _request(number: int, history: tuple[str, TokenIds], tail: tuple[str, TokenIds], sampling: Sampling) -> EngineRequest:
    return EngineRequest(
        rid=uuid.uuid4().hex,
        affinity=_symbol(number),
        mode="fast",
        input_ids=np.concatenate([history[1], tail[1]]),
        sampling=sampling,
        deadline_ms=SystemClock().now_ms() + _LIMIT_MS,
        text=lambda: (_SYSTEM, history[0] + tail[0]),
        view={},
    )


async def _ask(engine: Engine, number: int, history: tuple[str, TokenIds], tail: tuple[str, TokenIds], sampling: Sampling) -> _Call:
    request = _request(number, history, tail, sampling)
    usage = Usage(request.input_ids.size, 0)
    began = time.perf_counter()
    first_ms: float | None = None
    async with aclosing(engine.stream(request)) as chunks:
        async for chunk in chunks:
            if first_ms is None and (chunk.text or chunk.usage is not None):
                first_ms = (time.perf_counter() - began) * 1000
            usage = chunk.usage or usage
    total_ms = (time.perf_counter() - began) * 1000
    return _Call(total_ms if first_ms is None else first_ms, total_ms, usage)


async def _score(engine: Engine, number: int, history: tuple[str, TokenIds], tail: tuple[str, TokenIds], labels: TokenIds) -> _Call:
    began = time.perf_counter()
    scores = await engine.score(_request(number, history, tail, Sampling(1)), labels)
    total_ms = (time.perf_counter() - began) * 1000
    return _Call(total_ms, total_ms, scores.usage)
