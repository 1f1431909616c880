"""Run 4: the tuner's sweep over engines that are running already, one address for each combination."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console

from services.core.clock import SystemClock
from services.inference.engine import Engine
from services.inference.launcher import presets
from services.inference.launcher.presets import Preset, SpeculationPart
from services.inference.sglang_client import SGLangEngine
from services.inference.tuner import prompts, report
from services.inference.tuner.grid import label
from services.inference.tuner.sweep import Plan, sweep

LENGTHS = (8_192, 32_768)
AT_ONCE = (1, 3)


def main() -> None:
    """Measure each engine and write the table, the results and the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="+", help="STEPS/TOPK/TOKENS=URL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="h100")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget-s", type=float)
    arguments = parser.parse_args()
    base = presets.load(arguments.preset)
    candidates: list[Preset] = []
    urls: dict[str, str] = {}
    for engine in arguments.engines:
        combination, _, url = engine.partition("=")
        steps, topk, tokens = (int(part) for part in combination.split("/"))
        speculation = base.speculation.model_dump() | {"steps": steps, "topk": topk, "draft_tokens": tokens}
        candidates.append(base.model_copy(update={"speculation": SpeculationPart.model_validate(speculation)}))
        urls[label(candidates[-1])] = url

    @asynccontextmanager
    async def running(preset: Preset) -> AsyncIterator[Engine]:
        engine = SGLangEngine(urls[label(preset)], SystemClock())
        try:
            yield engine
        finally:
            await engine.close()

    plan = Plan(prompts.synthetic(max(AT_ONCE), max(LENGTHS)), LENGTHS, AT_ONCE, rounds=arguments.rounds)
    console = Console()
    rows = asyncio.run(sweep(candidates, plan, running, out=arguments.out / "tuned.json", say=console.print, budget_s=arguments.budget_s))
    console.print(report.table(rows))
    report.plot(rows, arguments.out / "tuned.png")


if __name__ == "__main__":
    main()
