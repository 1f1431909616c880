"""Latency: first token cold and cached, decode rate, and 64 tokens in / 80 out at 1, 3 and 8 at once, for one server."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import measure
from benchmarks.gpu.client import Server

LENGTHS = (8_192, 32_768, 60_000)
COUNTS = (1, 3, 8)


def main() -> None:
    """Measure the server at `--url` and write what was found under `--name` into `--results`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    arguments = parser.parse_args()
    server, results, lengths = Server(arguments.url), measure.Results(arguments.results), tuple(arguments.lengths)

    def stage(name: str, needs_s: float, work: Callable[[], Any]) -> None:
        results.stage(arguments.name, name, needs_s, work)

    stage("server", 1, partial(measure.describe, server))
    stage("warm", 30, partial(measure.warm, server, lengths[:2], COUNTS))
    for length in lengths:
        slow = length > lengths[1] if len(lengths) > 1 else False
        stage(f"first token {length}", 20, partial(measure.first_tokens, server, length, 8, 8))
        stage(f"decode {length}", 8, partial(measure.decode, server, length, 256, 2 if slow else 4))
        for count in COUNTS:
            stage(f"{count} at once {length}", 8, partial(measure.together, server, length, count, 5 if slow else 10))
        if length == lengths[min(1, len(lengths) - 1)]:
            sizes = (64, 300, 1_024, 2_048, 4_096)
            stage(f"append {length}", 10, partial(measure.appends, server, length, sizes, 4))
            stage(f"disturbed {length}", 10, partial(measure.disturbed, server, length, (0, 512, 1_024, 2_048), 4))
    stage("end", 1, partial(measure.describe, server))


if __name__ == "__main__":
    main()
