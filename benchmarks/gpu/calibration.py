"""Fit the simulator's timing model to run 1: `python -m benchmarks.gpu.calibration` writes results/calibration-h200.json beside it.

The same points as `aquiline engine calibrate` measures on a live engine. Limits are that engine's, whose KV cache was bounded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from services.inference.calibrate import ANSWER_TOKENS, NEW_TOKENS, Measured, calibration, simulated_ms
from services.inference.engine import EngineInfo
from services.inference.simulator.timing import Point

RESULTS = Path(__file__).parent / "results" / "run1.json"
OUT = RESULTS.with_name("calibration-h200.json")
SOURCE = (
    "Run 1 of benchmarks/gpu, November 2026: SGLang 0.5.17, random weights, acceptance simulated at 2.5 tokens a step "
    "(SGLANG_SIMULATE_ACC_LEN), greedy, one client on the same host."
)
LENGTHS = (8_192, 32_768, 60_000)
COUNTS = (1, 3, 8)


def points(stages: dict[str, Any]) -> list[Point]:
    """Return the points of one engine's stages."""
    found: list[Point] = []
    for length in LENGTHS:
        name, first = f"{length // 1024}K", stages[f"first token {length}"]
        cold, cached = first["cold_ms"]["median"], first["cached_ms"]["median"]
        found += [
            point(f"first token, {name} cold", length, length, cold),
            point(f"first token, {name} cached but for {NEW_TOKENS}", length + NEW_TOKENS, NEW_TOKENS, cached),
        ]
        for count in COUNTS:
            what = f"{NEW_TOKENS} in, {ANSWER_TOKENS} out, {name} cached, {count} at once"
            median = stages[f"{count} at once {length}"]["total_ms"]["median"]
            found.append(point(what, length + NEW_TOKENS, NEW_TOKENS, median, count=count, output=ANSWER_TOKENS))
    return found


def point(what: str, prompt: int, new: int, median_ms: float, *, count: int = 1, output: int = 1) -> Point:
    """Return one point."""
    return Point(what=what, prompt_tokens=prompt, new_tokens=new, at_once=count, output_tokens=output, median_ms=round(median_ms, 1))


def main() -> None:
    """Write the file and print what the simulator makes of each point."""
    stages = json.loads(RESULTS.read_text())["eagle3"]
    server = stages["server"]
    info = EngineInfo(
        name="run 1",
        source="llm",
        model="MiniCPM4.1-8B shape, bf16",
        context_tokens=65_536,
        kv_capacity_tokens=server["max_total_num_tokens"],
        raw=server,
    )
    made = calibration(Measured(points(stages), 2.5), info, accelerator="one NVIDIA H200", source=SOURCE)
    OUT.write_text(made.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for one in made.points:
        simulated = simulated_ms(made, one)
        print(f"{one.what}: {one.median_ms:.0f} ms measured, {simulated:.0f} simulated, {simulated / one.median_ms - 1:+.1%}")
    print(f"{OUT.name}: within {made.tolerance:.0%}")


if __name__ == "__main__":
    main()
