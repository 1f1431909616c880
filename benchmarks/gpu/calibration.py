"""Fit the simulator's timing model to the latency run: `python -m benchmarks.gpu.calibration h100` writes what the simulator ships with.

The points are those that `aquiline engine calibrate` measures on a live engine. The latency run bounds the KV cache so that two
engines share a card; the cache here is that of one engine alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from services.inference.calibrate import ANSWER_TOKENS, NEW_TOKENS, Measured, calibration, simulated_ms
from services.inference.engine import EngineInfo
from services.inference.simulator.timing import Point

RESULTS = Path(__file__).parent / "results"
SHIPPED = Path(__file__).parents[2] / "services" / "inference" / "data"
CARDS = {"h100": ("latency-h100.json", "one NVIDIA H100 80 GB", SHIPPED), "h200": ("latency-h200.json", "one NVIDIA H200", RESULTS)}
"""By name: the latency run's file, the card in words, and the folder that the calibration goes to."""
SOURCE = (
    "The latency run of benchmarks/gpu, November 2026: SGLang 0.5.17, random weights, acceptance simulated at 2.5 tokens a step "
    "(SGLANG_SIMULATE_ACC_LEN), greedy, one client on the same host."
)
KV_TOKENS = {"h100": 1_570_000, "h200": 3_240_000}
KV_SOURCE = (
    "Context, chunk and running calls: as the engine's /server_info says. KV capacity: computed, mem_fraction 0.85 of what the card has "
    "free when an engine starts, less 17.1 GiB of weights and draft as its log says, at 33 KiB a token."
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
        for new, times in stages.get(f"append {length}", {}).items():
            if new.isdigit() and int(new) > NEW_TOKENS:
                found.append(point(f"first token, {int(new):,} behind {name} cached", length + int(new), int(new), times["median"]))
        for count in COUNTS:
            what = f"{NEW_TOKENS} in, {ANSWER_TOKENS} out, {name} cached, {count} at once"
            median = stages[f"{count} at once {length}"]["total_ms"]["median"]
            found.append(point(what, length + NEW_TOKENS, NEW_TOKENS, median, count=count, output=ANSWER_TOKENS))
    return found


def point(what: str, prompt: int, new: int, median_ms: float, *, count: int = 1, output: int = 1) -> Point:
    """Return one point."""
    return Point(what=what, prompt_tokens=prompt, new_tokens=new, at_once=count, output_tokens=output, median_ms=round(median_ms, 1))


def main() -> None:
    """Write the card's file and print what the simulator makes of each point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("card", choices=sorted(CARDS))
    card = parser.parse_args().card
    file, accelerator, folder = CARDS[card]
    stages = json.loads((RESULTS / file).read_text())["eagle3"]
    server = stages["server"]
    info = EngineInfo(
        name="latency run",
        source="llm",
        model="MiniCPM4.1-8B shape, bf16",
        context_tokens=65_536,
        kv_capacity_tokens=KV_TOKENS[card],
        raw=server,
    )
    made = calibration(Measured(points(stages), 2.5), info, accelerator=accelerator, source=SOURCE)
    made = made.model_copy(update={"limits_source": KV_SOURCE})
    out = folder / f"calibration-{card}.json"
    out.write_text(made.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for one in made.points:
        simulated = simulated_ms(made, one)
        print(f"{one.what}: {one.median_ms:.0f} ms measured, {simulated:.0f} simulated, {simulated / one.median_ms - 1:+.1%}")
    print(f"{out.name}: within {made.tolerance:.0%}; {made.timing}")


if __name__ == "__main__":
    main()
