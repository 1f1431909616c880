"""Charts a second: drawing, the network's forward pass and the whole vision service, one chart at a time and in batches.

`python -m benchmarks.vision` measures all on the CPU and stores `benchmarks/results/vision.json`. On a GPU host,
`python -m benchmarks.vision --device cuda --forward-only --out FILE` needs numpy, torch, safetensors, pydantic and orjson alone.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from services.vision.render import ChartSpec, render

RESULTS: Final = Path(__file__).parent / "results" / "vision.json"
SPEC: Final = ChartSpec()
CPU_BATCHES: Final = (1, 8, 64)
CUDA_BATCHES: Final = (1, 8, 64, 512, 4096)
SYMBOLS: Final = 64
BARS: Final = 80
"""Closed bars a symbol in the service's run, of which 61 make a window."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where the forward pass runs")
    parser.add_argument("--forward-only", action="store_true", help="the forward pass alone")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to write")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each row is measured")
    arguments = parser.parse_args()
    rows = forward_rows(arguments.device, arguments.seconds)
    if not arguments.forward_only:
        rows = [*render_rows(arguments.seconds), *pattern_rows(arguments.seconds), *rows, *service_rows()]
    result = {
        "measured": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "machine": machine(arguments.device),
        "command": f"python -m benchmarks.vision --device {arguments.device}{' --forward-only' if arguments.forward_only else ''}",
        "spec": SPEC.name,
        "rows": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        print(f"{row['what']:<10} batch {row['batch']:>5}: {row['charts_per_s']:>10,.0f} charts/s, {row['ms_per_batch']:.3f} ms a batch")
    print(f"written: {arguments.out}")


def render_rows(seconds: float) -> list[dict[str, Any]]:
    return [_row("render", batch, seconds, partial(render, SPEC, _walks(batch))) for batch in CPU_BATCHES]


def pattern_rows(seconds: float) -> list[dict[str, Any]]:
    from services.vision.patterns import detect  # noqa: PLC0415 - pydantic's part of the price is in it

    window = _walks(1)[0, -SPEC.bars :]
    return [_row("patterns", 1, seconds, partial(detect, window))]


def forward_rows(device: str, seconds: float) -> list[dict[str, Any]]:
    """From pixels in the host's memory to probabilities there, with the shipped weights, as the service has it: numpy or torch on a GPU."""
    from services.vision.loading import load_forecaster  # noqa: PLC0415 - torch takes seconds

    model = load_forecaster(device="cuda" if device == "cuda" else "cpu")
    batches = CUDA_BATCHES if device == "cuda" else CPU_BATCHES
    images = render(SPEC, _walks(64)).repeat(max(batches) // 64, axis=0)
    return [_row(f"forward {device}", batch, seconds, partial(model.p_up, images[:batch])) for batch in batches]


def service_rows() -> list[dict[str, Any]]:
    from benchmarks.vision_service import run_service  # noqa: PLC0415 - the bus and all that comes with it

    rows = []
    for batch in (1, 64):
        charts, seconds = asyncio.run(run_service(SYMBOLS, BARS, batch))
        rows.append(
            {
                "what": "service",
                "batch": batch,
                "charts_per_s": charts / seconds,
                "ms_per_batch": 1000 * seconds / charts * batch,
                "symbols": SYMBOLS,
                "records": SYMBOLS * BARS,
            }
        )
    return rows


def machine(device: str) -> dict[str, Any]:
    cpu = next((line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        **(_gpu() if device == "cuda" else {}),
    }


def _gpu() -> dict[str, Any]:
    import torch  # noqa: PLC0415 - seconds, and gigabytes

    return {"gpu": torch.cuda.get_device_name(0), "torch": str(torch.__version__)}


def _row(what: str, batch: int, seconds: float, work: Callable[[], object]) -> dict[str, Any]:
    """Measure rounds until `seconds` have passed, the first few apart as warm-up, and take the median."""
    for _ in range(3):
        work()
    times: list[float] = []
    while sum(times) < seconds:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    median_s = statistics.median(times)
    return {"what": what, "batch": batch, "charts_per_s": batch / median_s, "ms_per_batch": 1000 * median_s, "rounds": len(times)}


def _walks(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    generator = np.random.default_rng(1)
    closes = 100 * np.exp(np.cumsum(generator.normal(0, 0.01, (count, SPEC.history)), axis=1))
    opens = np.concatenate([closes[:, :1], closes[:, :-1]], axis=1)
    highs, lows = np.maximum(opens, closes) * 1.004, np.minimum(opens, closes) * 0.996
    return np.stack([opens, highs, lows, closes, generator.uniform(1, 9, closes.shape)], axis=2)


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


if __name__ == "__main__":
    main()
