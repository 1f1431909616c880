"""What 100, 1,000 and 10,000 symbols at 1m need, computed from the stored figures: `python -m benchmarks.scaling`.

All bars of a minute close at once, so every stage must handle one record or decision of every symbol within the time that a signal has.
Prices of GPUs are an input. `python -m benchmarks report` writes the tables into docs/scaling.md.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks.harness import RESULTS
from services.core.fusion_settings import FusionSettings

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "scaling.md"
COUNTS: Final = (100, 1_000, 10_000)
GPU_PRICE: Final = 3.0
"""Assumed price of a GPU for an hour, in the currency of your choice; not measured."""
_GPU: Final = RESULTS.parent / "gpu" / "results" / "short-answers-h200.json"
_RATES: Final = {"flash": "12 bars/s", "fast": "6 bars/s"}
"""The highest rate of each mode at which an H200 published a signal for every bar, with prompts of 35K tokens."""
_KV_TOKENS: Final = 1_600_000
"""KV cache of the preset `h100` (docs/engine.md); an estimate."""
_UPDATES_A_MINUTE: Final = 12
"""Records of a symbol: a forming bar every 5 s, the last of them closed."""
_DAY_MINUTES: Final = 1_440
_WORKER_SYMBOLS: Final = FusionSettings().max_symbols
_PARTITIONS: Final = 12
"""Partition counts are multiples of this: they share out evenly between 2, 3, 4, 6 and 12 members."""
_BLOCK: Final = re.compile(r"(?<=<!-- python -m benchmarks\.scaling -->\n).*?(?=<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured, of one engine or one core, and the settings' times in milliseconds."""

    rates: Mapping[str, float]
    """Decisions a second of one engine, by mode."""
    decision_ms: float
    """From a record to its request at the engine, in the worker."""
    fold_us: Mapping[int, float]
    rebuild_s: Mapping[int, float]
    """Processor seconds until one worker has rebuilt every book, by symbols."""
    memory_mb: Mapping[int, float]
    candle_us: float
    charts_per_s: float
    record_bytes: float
    bar_tokens: float
    window_ms: float
    """From a bar's close to the last moment to hand a signal over."""
    vision_wait_ms: float
    bars: int
    """Bars in a prompt at the end of an epoch, at most."""


def figures() -> Figures:
    """Return the stored figures, and the default settings' times."""
    settings = FusionSettings()
    answers = orjson.loads(_GPU.read_bytes())
    for mode, rate in _RATES.items():
        assert set(answers[mode][rate]["ended"]) == {"published"}, f"{mode} at {rate} lost bars"
    symbols = _rows("symbols")
    (untraced,) = [row for row in _rows("traces") if row["traces"] == "off"]
    (warm,) = [row for row in _rows("request") if row["pages from"] == "memory"]
    (service,) = [row for row in _rows("vision") if row["what"] == "service" and row["batch"] == 64]
    return Figures(
        rates={mode: float(rate.split()[0]) for mode, rate in _RATES.items()},
        decision_ms=warm["median ms"],
        fold_us={row["symbols"]: row["fold processor µs a record"] for row in symbols},
        rebuild_s={row["symbols"]: row["rebuild processor s"] for row in symbols},
        memory_mb={row["symbols"]: row["MB with prompts built"] for row in symbols},
        candle_us=untraced["µs a candle, market"],
        charts_per_s=service["charts_per_s"],
        record_bytes=max(row["bytes a record"] for row in _rows("fold")),
        bar_tokens=warm["prompt tokens"] / _setting("request")["window_bars"],
        window_ms=min(settings.entry_validity("1m") - settings.delivery_reserve_ms, settings.max_staleness_ms),
        vision_wait_ms=settings.vision_wait_ms,
        bars=settings.window_bars + 2 * settings.epoch_slots,
    )


@dataclass(frozen=True, slots=True)
class Needs:
    """How many of each are needed for `symbols`."""

    symbols: int
    engines: Mapping[str, int]
    """By mode, so that every bar is decided in time and every prefix stays cached."""
    workers: int
    vision: int
    market: int
    partitions: int

    @property
    def bottleneck(self) -> str:
        """Return the parts that more than one is needed of, the most numerous first."""
        counts = {"engine": self.engines["flash"], "vision service": self.vision, "worker": self.workers, "market service": self.market}
        scarce = sorted((name for name, count in counts.items() if count > 1), key=lambda name: -counts[name])
        return ", then ".join(scarce)


def needs(symbols: int, known: Figures) -> Needs:
    """Return what `symbols` need when every closed bar asks the model."""
    window_s, wait_s = known.window_ms / 1_000, known.vision_wait_ms / 1_000
    cached = symbols * 2 * known.bars * known.bar_tokens / _KV_TOKENS
    workers = max(symbols * known.decision_ms / known.window_ms, symbols / _WORKER_SYMBOLS)
    workers, vision, market = (
        math.ceil(count) for count in (workers, symbols / (known.charts_per_s * wait_s), symbols * known.candle_us / 1e6 / window_s)
    )
    return Needs(
        symbols=symbols,
        engines={mode: math.ceil(max(symbols / (rate * window_s), cached)) for mode, rate in known.rates.items()},
        workers=workers,
        vision=vision,
        market=market,
        partitions=_PARTITIONS * math.ceil(max(workers, vision, market) / _PARTITIONS),
    )


def tables(gpu_price: float = GPU_PRICE) -> str:
    """Return both tables as Markdown: what one of each part carries, and what each count of symbols needs."""
    known = figures()
    return f"{_capacities(known)}\n{_needs(known, [needs(count, known) for count in COUNTS], gpu_price)}"


def _capacities(known: Figures) -> str:
    window_s, slowest_us = known.window_ms / 1_000, max(known.fold_us.values())
    rows = [
        (f"one engine in mode `{mode}`: {rate:g} decisions a second for {window_s:g} s", rate * window_s)
        for mode, rate in known.rates.items()
    ]
    rows += [
        ("one engine's KV cache: two prefixes of each symbol", _KV_TOKENS / (2 * known.bars * known.bar_tokens)),
        (
            f"one vision service: {known.charts_per_s:,.0f} charts a second for {known.vision_wait_ms:g} ms",
            known.charts_per_s * known.vision_wait_ms / 1_000,
        ),
        (f"one worker's decisions: {known.decision_ms:g} ms each, for {window_s:g} s", known.window_ms / known.decision_ms),
        ("one worker's books: `fusion.max_symbols`", _WORKER_SYMBOLS),
        (f"one market service: {known.candle_us:g} µs a candle, for {window_s:g} s", 1e6 * window_s / known.candle_us),
        (f"one worker's fold: {slowest_us:g} µs a record, {_UPDATES_A_MINUTE} a minute", 60e6 / slowest_us / _UPDATES_A_MINUTE),
    ]
    lines = "".join(f"| {what} | {math.floor(count):,} |\n" for what, count in rows)
    return f"| one of each part carries | symbols |\n|---|---|\n{lines}"


def _needs(known: Figures, all_needs: Sequence[Needs], gpu_price: float) -> str:
    per_s = [one.symbols * _UPDATES_A_MINUTE / 60 for one in all_needs]
    day_gb = [2 * one.symbols * _UPDATES_A_MINUTE * _DAY_MINUTES * known.record_bytes / 1e9 for one in all_needs]
    rows: list[tuple[str, list[str]]] = [
        ("limits first", [one.bottleneck for one in all_needs]),
        *((f"engines, mode `{mode}`", [f"{one.engines[mode]:,}" for one in all_needs]) for mode in known.rates),
        ("workers", [f"{one.workers:,}" for one in all_needs]),
        ("vision services", [f"{one.vision:,}" for one in all_needs]),
        ("market services", [f"{one.market:,}" for one in all_needs]),
        ("partitions, at least", [f"{one.partitions:,}" for one in all_needs]),
        ("`fusion.permits` of each worker, for three calls at an engine", [_permits(one) for one in all_needs]),
        ("Kafka: candles and market features, records/s", [f"{2 * rate:,.0f}" for rate in per_s]),
        ("the same, MB/s", [f"{2 * rate * known.record_bytes / 1e6:.2f}" for rate in per_s]),
        ("the same, GB a day in one copy", [f"{size:,.1f}" for size in day_gb]),
        (
            "folding, share of one core",
            [_measured(known.fold_us, one.symbols, rate / 1e6, ".1%") for one, rate in zip(all_needs, per_s, strict=True)],
        ),
        ("rebuild of all books, processor seconds", [_measured(known.rebuild_s, one.symbols, 1, ".1f") for one in all_needs]),
        ("the same, of one worker of those above", [_measured(known.rebuild_s, one.symbols, 1 / one.workers, ".1f") for one in all_needs]),
        ("memory of all books and prompts, MB", [_measured(known.memory_mb, one.symbols, 1, ",.0f") for one in all_needs]),
        *(
            (f"GPUs at {gpu_price:.2f} an hour, mode `{mode}`, an hour", [f"{one.engines[mode] * gpu_price:,.2f}" for one in all_needs])
            for mode in known.rates
        ),
    ]
    lines = "".join(f"| {name} | {' | '.join(cells)} |\n" for name, cells in rows)
    header = " | ".join(f"{one.symbols:,} symbols" for one in all_needs)
    return f"| | {header} |\n|---|{'---|' * len(all_needs)}\n{lines}"


def _measured(figures_by_count: Mapping[int, float], symbols: int, factor: float, form: str) -> str:
    """Return a figure times `factor`, unless it was not measured with so many symbols."""
    figure = figures_by_count.get(symbols)
    return "not measured" if figure is None else format(figure * factor, form)


def _permits(one: Needs) -> str:
    return f"{math.ceil(3 * one.engines['flash'] / one.workers):,}"


def written(page: str) -> str:
    """Return the page with its tables computed anew."""
    return _BLOCK.sub(lambda _: tables(), page)


def write_document() -> None:
    """Compute the tables of docs/scaling.md anew."""
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description="Compute what 100, 1,000 and 10,000 symbols at 1m need, from the stored figures."
    )
    parser.add_argument("--gpu-price", type=float, default=GPU_PRICE, help="price of a GPU for an hour (default: %(default)s)")
    print(tables(parser.parse_args(argv).gpu_price), end="")
    return 0


def _rows(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = orjson.loads((RESULTS / f"{name}.json").read_bytes())["rows"]
    return rows


def _setting(name: str) -> dict[str, Any]:
    setting: dict[str, Any] = orjson.loads((RESULTS / f"{name}.json").read_bytes())["setting"]
    return setting


if __name__ == "__main__":
    sys.exit(main())
