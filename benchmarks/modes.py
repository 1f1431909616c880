"""Decisions a minute of the demo's real model on this machine's CPU: mode `flash` against mode `fast`, by turns on one llama.cpp server.

Each symbol's next bar is sent as soon as its last one has its outcome, so that the engine always has work. The worker is the demo's, and
what is counted is its published signals.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks.harness import Measured, Target, run_alone
from benchmarks.stock_site import FIRST_PLAYED_MS, stock_pipeline
from schemas import AuditRecord, Candle, RunMode
from services.core.clock import SystemClock
from services.core.settings import Settings, load
from services.demo.setup import MODEL_CONTEXT_TOKENS, MODEL_FUSION, MODEL_SYMBOLS
from services.feeds.samples import load_stocks
from services.fusion.state.epochs import EpochBoundaries
from services.inference.connect import connect
from services.inference.engine import Engine
from services.inference.own_engine import OwnEngine, local_model
from services.pipeline.closing_checks import closing_checks
from services.pipeline.outputs import Outputs

FASTER: Final = 3.0
"""How many times the decisions of mode `fast` mode `flash` is to make."""
MODES: Final[dict[str, dict[str, Any]]] = {
    "flash": {"mode": "flash", "rationale": "none"},
    "fast": {"mode": "fast", "rationale": "short"},
    "fast, no rationale": {"mode": "fast", "rationale": "none"},
}
_PARTITIONS: Final = 2
_HISTORY_BARS: Final = 200
_PATIENT: Final[dict[str, Any]] = {
    "entry_validity_ms": {"1d": 300_000},
    "max_staleness_ms": 300_000,
    "vision_wait_ms": 0,
    "repair": False,
    "prewarm": False,
}
"""No decision is lost to a deadline on a busy machine: what is compared is how many are made. A turn finds in the server's slots what the
one before has left; a prefix that is sent ahead in slices would have the server drop it first."""


@dataclass(slots=True)
class Turn:
    """What one turn of a mode made: how its triggers ended, and for how long it ran."""

    ended: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    engine_cpu_s: float = 0.0
    """The server's processor time, which other work on the machine changes less than the clock's."""
    first_token_ms: list[float] = field(default_factory=list)
    decision_ms: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    uncached_tokens: list[int] = field(default_factory=list)

    def add(self, audit: AuditRecord) -> None:
        """Count one outcome."""
        said = f"{audit.outcome.value} {audit.reason or ''}".strip()
        self.ended[said] = self.ended.get(said, 0) + 1
        if "decision" in audit.latency_ms:
            self.first_token_ms.append(audit.latency_ms["first_token"])
            self.decision_ms.append(audit.latency_ms["decision"])
        if audit.prompt_tokens is not None:
            self.prompt_tokens = max(self.prompt_tokens, audit.prompt_tokens)
            self.uncached_tokens.append(audit.prompt_tokens - (audit.cached_tokens or 0))


def bars_of(settings: Settings) -> tuple[list[Candle], dict[str, Iterator[Candle]]]:
    """Return the history and, by symbol, the bars that are played.

    What is played begins with an epoch of each symbol and ends within it, as the demo's act does: a prefix that is laid out anew in
    the middle costs both modes ten seconds of the CPU, and hides what they differ in.
    """
    history: list[Candle] = []
    played: dict[str, Iterator[Candle]] = {}
    for symbol, candles in load_stocks(RunMode.DEMO).items():
        boundaries = EpochBoundaries(symbol, "1d", settings.fusion.epoch_slots)
        first_ms = boundaries.start_ms(boundaries.index(FIRST_PLAYED_MS) + 1)
        before = [candle for candle in candles if candle.ts_close_ms <= first_ms]
        if len(before) < _HISTORY_BARS or len(played) == MODEL_SYMBOLS:
            continue
        history += before[-_HISTORY_BARS:]
        played[symbol] = iter(candles[len(before) :])
    return history, played


async def play(settings: Settings, engine: Engine, turn: Turn, decisions: int) -> None:
    """Run one turn's services, and keep one bar of each symbol under way until `decisions` of them have their outcomes."""
    history, bars = bars_of(settings)
    ended: asyncio.Queue[AuditRecord] = asyncio.Queue()
    outputs = Outputs(lambda audit, _: ended.put_nowait(audit))
    async with stock_pipeline(settings, [engine], history, outputs, partitions=_PARTITIONS) as pipeline:
        began_s = time.perf_counter()
        await pipeline.publish([next(waiting) for waiting in bars.values()])
        for left in reversed(range(decisions)):
            audit = await ended.get()
            turn.add(audit)
            if left >= len(bars):
                await pipeline.publish([next(bars[audit.symbol])])
        turn.seconds += time.perf_counter() - began_s
        inputs = await pipeline.decided()
        await pipeline.stop_workers()
        assert all(check.ok for check in closing_checks(pipeline.accounts, outputs, inputs))


def settings_of(mode: dict[str, Any]) -> Settings:
    """Return the settings of the demo's model, in another mode."""
    fusion = MODEL_FUSION | mode | _PATIENT
    return load(None, {"run_mode": "demo", "bus": {"url": "memory://"}, "redis": {"url": "none://"}, "fusion": fusion})


async def _stay_open() -> None:
    """Keep the engine for the next turn's worker."""


async def measure(quick: bool) -> Measured:  # noqa: FBT001 - the harness calls it
    """Measure both modes by turns."""
    rounds, decisions = (1, 4) if quick else (3, 8)
    # Room for two prompts a symbol: the rules of mode `flash` are longer, so that its prefix is not that of `fast`.
    model = local_model(symbols=2 * MODEL_SYMBOLS, context_tokens=MODEL_CONTEXT_TOKENS)
    engine = (await model.start(settings_of(MODES["flash"]), lambda line: print(line, file=sys.stderr))).engine
    client = connect(engine, SystemClock())
    # One client for all turns: it knows which of the server's slots holds which symbol's prompt.
    close, client.close = client.close, _stay_open  # type: ignore[method-assign]
    turns = {name: Turn() for name in MODES}
    try:
        for number in range(rounds + 1):
            for name, mode in MODES.items():
                # The first round is not counted: the server reads the prefixes, and compiles the grammar.
                settings = settings_of(mode).model_copy(update={"engine": engine})
                cpu_s = cpu_s_of(model)
                await play(settings, client, turns[name] if number else Turn(), decisions if number else 2)
                turns[name].engine_cpu_s += (cpu_s_of(model) - cpu_s) if number else 0.0
                print(f"round {number} of {rounds}: {name} {orjson.dumps(turns[name].ended).decode()}", file=sys.stderr, flush=True)
    finally:
        await close()
        await model.kill()
    rows = [row(name, turn) for name, turn in turns.items()]
    a_minute = {line["mode"]: line["decisions a minute"] for line in rows}
    return Measured(
        rows=rows,
        setting={"model": "SmolLM2-135M, llama.cpp on the CPU", "symbols": MODEL_SYMBOLS, "rounds": rounds, "decisions a round": decisions},
        targets=[Target("decisions of flash for one of fast", FASTER, at_least=True, got=round(a_minute["flash"] / a_minute["fast"], 2))],
        notes=[
            "`fast` asks for a rationale, as it does by default; the signal is published before it is written.",
            "On a machine that does other work too, compare the engine's processor time.",
        ],
    )


def cpu_s_of(model: OwnEngine) -> float:
    """Return the processor time that a model's server has taken since its start, in seconds."""
    assert model._prepared is not None  # noqa: SLF001
    process = model._prepared[0]._process  # noqa: SLF001
    assert process is not None
    user, system = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def row(name: str, turn: Turn) -> dict[str, Any]:
    """Return a mode's row."""
    published = turn.ended.get("published", 0)
    return {
        "mode": name,
        "published": published,
        "other outcomes": sum(turn.ended.values()) - published,
        "decisions a minute": round(published / turn.seconds * 60, 1),
        "engine CPU s a decision": round(turn.engine_cpu_s / max(1, published), 2),
        "first token ms": round(statistics.median(turn.first_token_ms)) if turn.first_token_ms else None,
        "then to the decision ms": round(statistics.median(turn.decision_ms)) if turn.decision_ms else None,
        "prompt tokens": turn.prompt_tokens,
        "of them new": round(statistics.median(turn.uncached_tokens)) if turn.uncached_tokens else None,
    }


if __name__ == "__main__":
    sys.exit(run_alone("modes", __doc__, measure))
