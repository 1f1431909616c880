"""First tokens, steps and calls at once of one server, at the lengths asked for, for `long_context.sh` and `quantized.sh`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from benchmarks.gpu import measure
from benchmarks.gpu.client import Server

COUNTS = (1, 3, 8)
_SHORT = 40_000
"""Above it one prefix is cold at a time and calls go one by one: eight prompts of 128K would not fit beside each other."""


def main() -> None:
    """Measure the server at `--url` and write what was found under `--name` into `--results`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--lengths", type=int, nargs="+", required=True)
    parser.add_argument("--at-once", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--results", type=Path, required=True)
    arguments = parser.parse_args()
    server, results = Server(arguments.url, timeout_s=120.0), measure.Results(arguments.results)
    results.stage(arguments.name, "server", 1, partial(measure.describe, server))
    results.stage(arguments.name, "warm", 20, partial(measure.warm, server, (), tuple(arguments.at_once)))
    for length in arguments.lengths:
        short = length < _SHORT
        results.stage(arguments.name, f"first token {length}", 15, partial(measure.first_tokens, server, length, 4 if short else 1, 8))
        results.stage(arguments.name, f"decode {length}", 8, partial(measure.decode, server, length, 160, 4 if short else 2))
        for count in arguments.at_once if short else (1,):
            results.stage(arguments.name, f"{count} at once {length}", 8, partial(measure.together, server, length, count, 6))
    results.stage(arguments.name, "end", 1, partial(measure.describe, server))


if __name__ == "__main__":
    main()
