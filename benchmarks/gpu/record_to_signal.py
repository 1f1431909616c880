"""Record to signal: the worker itself beside an engine, fed with real bars at stated rates: from record to verdict, or to a token.

With several `--url`s there is a worker beside each engine, all of one group: each decides on the symbols of its partitions.

In-process bus, recorded vision features, the market service on the same loop. `--answer` is for engines whose accepted tokens
are forced, so that no answer parses: a given line takes each answer's place once the engine has made as many tokens, and is published.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from benchmarks.gpu.client import Server
from benchmarks.gpu.measure import Results
from benchmarks.gpu.recording import Length, RecordingEngine
from benchmarks.gpu.verdicts import Stage, describe_rate
from benchmarks.stock_site import FIRST_PLAYED_MS, stock_pipeline
from schemas import Candle, RunMode
from services.core import logs
from services.core.clock import SystemClock
from services.core.settings import Settings, load
from services.core.tokenizer import Tokenizer
from services.feeds.paced_publishing import in_event_time
from services.feeds.samples import load_stocks
from services.fusion.prompt.traffic import EngineTraffic
from services.pipeline.outputs import Outputs
from services.pipeline.pipeline import Pipeline, wait_until
from services.vision.recorded import load_recorded

PARTITIONS = 4
HISTORY_BARS = 1_400
WARM_RATE, WARM_BARS = 6.0, 84
KEPT = ("mode", "answer_form", "rationale", "intervals", "window_bars", "epoch_slots", "permits", "grammar")
LEFT_OUT = "FB.XNAS"
"""Listed in May 2012: too young for a window of 880 bars."""
TOKENIZER = Path(__file__).resolve().parents[2] / "services" / "inference" / "data" / "tokenizer.json"


RATIONALE_TOKENS = 40
"""Of a given answer's rationale: a sentence of 160 characters."""


async def _at_once(self: EngineTraffic, step_ms: float = 0.0) -> None:
    """Let a slice go out beside decisions, as before slices waited."""
    del self, step_ms


async def _never(self: EngineTraffic) -> None:
    """Let no decision end a slice."""
    del self
    await asyncio.Event().wait()


_WAITING, _YIELDING = EngineTraffic.quiet, EngineTraffic.busy


def settings_for(arguments: argparse.Namespace, *, grammar: bool) -> Settings:
    """Return the demo's settings, but for the window, deadlines that a slow answer can meet, and no limit on signals a minute.

    An answer that cannot be used is not asked for again: of random weights, the second one is no better than the first.
    """
    return load(
        None,
        {
            "run_mode": "demo",
            "bus": {"url": "memory://"},
            "redis": {"url": "memory://"},
            "engine": {"urls": arguments.url, "scores": arguments.scores},
            "market": {"aggregate": {"1d": ["1w"]}},
            "fusion": {
                "intervals": ["1d", "1w"],
                "window_bars": arguments.window_bars,
                "epoch_slots": arguments.epoch_slots,
                "permits": 3,
                "entry_validity_ms": {"1d": 5_000},
                "rate_limit_per_min": 100_000,
                "mode": arguments.mode,
                "answer_form": arguments.form,
                "rationale": arguments.rationale,
                "flash_min_margin": 0.0,
                "grammar": grammar,
                "repair": False,
            },
        },
    )


class Site:
    """A worker for each engine, whose calls are written down, and the bars that are played."""

    def __init__(self, pipeline: Pipeline, engines: Sequence[RecordingEngine], outputs: Outputs, played: list[Candle]) -> None:
        """Play `played` on a running pipeline."""
        self.pipeline = pipeline
        self.engines = engines
        self._outputs = outputs
        self._played = played
        self._vision = load_recorded()

    async def play(self, rate: float, count: int) -> Stage:
        """Send `count` bars, `rate` a second, whatever becomes of them; return all that did, once nothing is open any more.

        Times between bars are even between half and one and a half of their mean.
        """
        candles, self._played = self._played[:count], self._played[count:]
        if len(candles) < count:
            raise ValueError(f"{count} bars were to be played and {len(candles)} are left")
        source = random.Random(f"{rate} {count}")  # noqa: S311 - a workload, no secret
        loop = asyncio.get_running_loop()
        warmed, sent_ms, before = self.sent_ahead(), {}, len(self._outputs.audits)
        due_s = began_s = loop.time()
        late_ms = 0.0
        for candle in candles:
            due_s += source.uniform(0.5, 1.5) / rate
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            late_ms = max(late_ms, (loop.time() - due_s) * 1000)
            sent_ms[candle.symbol, candle.ts_close_ms] = time.time() * 1000
            # What a chart reader saw in the bar comes with it.
            chart = self._vision.get((candle.symbol, candle.ts_close_ms))
            await self.pipeline.publish([candle] if chart is None else [candle, chart])
        seconds = loop.time() - began_s
        await wait_until(lambda: len(self._outputs.audits) >= before + count, 10)
        found = list(self._outputs.audits.values())[before:]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(worker.prewarmer.idle() for worker in self.pipeline.workers)), 10)
        after = self.sent_ahead()
        sent_ahead = {name: after[name] - warmed[name] for name in after}
        calls = {digest: call for engine in self.engines for digest, call in engine.calls.items()}
        return Stage(rate, count, seconds, late_ms, sent_ms, found, calls, sent_ahead)

    def sent_ahead(self) -> dict[str, int]:
        """Return what sending ahead has cost so far."""
        counts = [worker.prewarmer.count for worker in self.pipeline.workers]
        return {name: sum(getattr(count, name) for count in counts) for name in ("calls", "prompt_tokens", "cached_tokens")}


@asynccontextmanager
async def running_site(settings: Settings, length: Length | None, answer: str | None = None) -> AsyncIterator[Site]:
    """Yield a site whose workers have read the history and sent the prefixes ahead."""
    engines = [RecordingEngine(url, SystemClock(), length, scores=settings.engine.scores, answer=answer) for url in settings.engine.urls]
    history: list[Candle] = []
    played: list[Candle] = []
    for symbol, candles in load_stocks(RunMode.DEMO).items():
        if symbol != LEFT_OUT:
            before = [candle for candle in candles if candle.ts_close_ms < FIRST_PLAYED_MS]
            history += before[-HISTORY_BARS:]
            played += candles[len(before) :]
    outputs = Outputs()
    async with stock_pipeline(settings, engines, history, outputs, partitions=PARTITIONS) as pipeline:
        # Day after day, the symbols always in the same order: a symbol's bars are then never closer than a round of all of them.
        yield Site(pipeline, engines, outputs, in_event_time(played))


def length_of(arguments: argparse.Namespace) -> Length:
    """Return what a given answer is held to: its tokens and its end, and those of a rationale where one is asked for."""
    tokens = arguments.answer_tokens or len(Tokenizer.from_file(TOKENIZER).encode(arguments.answer))
    decision = tokens + 1
    return Length(decision, decision + (0 if arguments.rationale == "none" else RATIONALE_TOKENS))


def play_of(text: str) -> tuple[float, float, bool]:
    """Return bars a second, seconds, and whether slices wait for decisions, of `RATE:SECONDS` or `RATE:SECONDS:free`."""
    rate, seconds, *rest = text.split(":")
    return float(rate), float(seconds), rest != ["free"]


async def run(arguments: argparse.Namespace, results: Results) -> None:
    """Play each rate in turn and write down what was found."""
    length = None if arguments.answer is None else length_of(arguments)
    settings = settings_for(arguments, grammar=length is None)
    logs.configure(settings.log.model_copy(update={"level": "warning"}), service="record_to_signal")
    explained = "" if arguments.rationale == "none" else f"\n{'why ' * 10}"
    answer = None if arguments.answer is None else arguments.answer + explained
    # What an earlier run has left would make this one's prompts, which are the same, cheaper than they are.
    for url in arguments.url:
        await asyncio.to_thread(Server(url).request, "POST", "/flush_cache")
    began_s = time.perf_counter()
    async with running_site(settings, length, answer) as site:
        start = {
            "fusion": {key: getattr(settings.fusion, key) for key in KEPT},
            "answer": arguments.answer,
            "held_to_tokens": None if length is None else length._asdict(),
            "ready_s": round(time.perf_counter() - began_s, 1),
            "sent_ahead": site.sent_ahead(),
            "workers": len(site.engines),
        }
        results.keep(arguments.name, "start", start)
        await play_rates(site, arguments, results)
        by_worker = [worker.accounts.summary() for worker in site.pipeline.workers]
        results.keep(arguments.name, "accounts", {"by_worker": by_worker})


async def play_rates(site: Site, arguments: argparse.Namespace, results: Results) -> None:
    """Play each rate, after a start that is discarded.

    The first decisions compile the grammar, and the next prefixes, of which a worker that starts inside an epoch has sent nothing, catch
    up with where they would be.
    """
    await site.play(WARM_RATE, WARM_BARS)
    with arguments.results.with_name(f"record_to_signal-{arguments.name}.jsonl").open("w") as lines:
        for pair in arguments.rates:
            rate, seconds, waits = play_of(pair)
            label = f"{rate:g} bars/s{'' if waits else ', slices free'}"
            # Of the class: every worker has one.
            EngineTraffic.quiet = _WAITING if waits else _at_once  # type: ignore[method-assign]
            EngineTraffic.busy = _YIELDING if waits else _never  # type: ignore[method-assign]
            if results.left() < seconds + 15:
                skipped = f"{results.left():.0f} s were left, {seconds + 15:.0f} s are needed"
                results.keep(arguments.name, label, {"skipped": skipped})
                continue
            for engine in site.engines:
                engine.calls.clear()
            row, details = describe_rate(await site.play(rate, round(rate * seconds)))
            results.keep(arguments.name, label, row)
            lines.writelines(json.dumps({"slices": "wait" if waits else "free", **detail}) + "\n" for detail in details)


def main() -> None:
    """Run the worker on the engine at `--url` and write what was found under `--name` into `--results`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, nargs="+", help="an engine, and another for each worker more")
    parser.add_argument("--name", required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument(
        "--rates",
        nargs="+",
        default=["1:30", "2:25", "4:25", "6:20", "8:15"],
        help="bars a second over all symbols:seconds[:free], where free lets slices go out beside decisions",
    )
    parser.add_argument("--mode", choices=["flash", "fast"], default="fast")
    parser.add_argument("--form", choices=["line", "json"], default="line")
    parser.add_argument("--rationale", choices=["none", "short"], default="none")
    parser.add_argument("--scores", action="store_true", help="ask for the actions' probabilities beside each answer")
    parser.add_argument("--answer", help="the line that takes each answer's place")
    parser.add_argument("--answer-tokens", type=int, help="its tokens; as many as the shipped tokenizer makes of it when absent")
    parser.add_argument("--window-bars", type=int, default=880)
    parser.add_argument("--epoch-slots", type=int, default=92, help="days: 92 of them hold some 64 sessions")
    arguments = parser.parse_args()
    asyncio.run(run(arguments, Results(arguments.results)))


if __name__ == "__main__":
    main()
