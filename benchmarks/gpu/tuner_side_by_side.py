"""The tuner's sweep over engines that are running already, one address for each combination.

Rows that the results hold already, of combinations measured before, are kept and shown with the new ones.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
from rich.console import Console

from services.core.clock import SystemClock
from services.inference.engine import Engine
from services.inference.launcher import presets
from services.inference.launcher.presets import EnginePart, Preset, SpeculationPart
from services.inference.sglang_client import SGLangEngine
from services.inference.tuner import prompts, report
from services.inference.tuner.grid import label
from services.inference.tuner.measuring import Cell
from services.inference.tuner.sweep import Plan, Row, sweep

LENGTHS = (8_192, 32_768)
AT_ONCE = (1, 3)


def main() -> None:
    """Measure each engine and write the table, the results and the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="+", help="STEPS/TOPK/TOKENS[:window=N][:backend=NAME]=URL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="h100")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", type=int, nargs="+", default=AT_ONCE)
    parser.add_argument("--budget-s", type=float)
    arguments = parser.parse_args()
    base = presets.load(arguments.preset)
    candidates: list[Preset] = []
    urls: dict[str, str] = {}
    for engine in arguments.engines:
        combination, _, url = engine.rpartition("=")
        candidates.append(candidate(base, combination))
        urls[label(candidates[-1])] = url

    @asynccontextmanager
    async def running(preset: Preset) -> AsyncIterator[Engine]:
        engine = SGLangEngine(urls[label(preset)], SystemClock())
        try:
            yield engine
        finally:
            await engine.close()

    plan = Plan(prompts.synthetic(max(arguments.at_once), max(LENGTHS)), LENGTHS, arguments.at_once, rounds=arguments.rounds)
    console = Console()
    results = arguments.out / "tuned.json"
    before = [row for row in earlier(results) if label(row.preset) not in urls]
    fresh = arguments.out / "batch.json"
    rows = asyncio.run(sweep(candidates, plan, running, out=fresh, say=console.print, budget_s=arguments.budget_s))
    fresh.unlink(missing_ok=True)
    rows = sorted([*before, *rows], key=lambda row: (row.score is None, row.score or 0.0))
    results.write_bytes(orjson.dumps([row.as_data() for row in rows], option=orjson.OPT_INDENT_2))
    console.print(report.table(rows))
    report.plot(rows, arguments.out / "tuned.png")


def candidate(base: Preset, combination: str) -> Preset:
    """Return the preset that `STEPS/TOPK/TOKENS[:window=N][:backend=NAME]` stands for."""
    shape, *options = combination.split(":")
    steps, topk, tokens = (int(part) for part in shape.split("/"))
    named = dict(option.split("=", 1) for option in options)
    speculation = {
        "steps": steps,
        "topk": topk,
        "draft_tokens": tokens,
        "draft_window": int(named["window"]) if "window" in named else None,
    }
    engine = {"attention_backend": named["backend"]} if "backend" in named else {}
    return base.model_copy(
        update={
            "speculation": SpeculationPart.model_validate(base.speculation.model_dump() | speculation),
            "engine": EnginePart.model_validate(base.engine.model_dump() | engine),
        }
    )


def earlier(results: Path) -> list[Row]:
    """Return the rows of an earlier batch."""
    if not results.exists():
        return []
    return [
        Row(Preset.model_validate(row["preset"]), [Cell(**cell) for cell in row["cells"]], failure=row["failure"], seconds=row["seconds"])
        for row in orjson.loads(results.read_bytes())
    ]


if __name__ == "__main__":
    main()
