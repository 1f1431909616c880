"""`python -m benchmarks`: runs benchmarks one after another, prints their tables and keeps their results."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks import scaling
from benchmarks.harness import RESULTS
from benchmarks.report import DOCUMENT, results_table, write_document

BENCHMARKS: Final = {
    "fold": "records a second that the worker decodes and folds from Kafka, against a bare loop (3 min)",
    "request": "milliseconds from a bar's record to its request at the engine, with 32K tokens (1 min)",
    "prefix": "share of prompt tokens in the engine's cache: epochs against a sliding window (3 min)",
    "overload": "age and fairness of signals at ten times the engine's capacity (6 min)",
    "rebuild": "time and memory of taking 1,000 symbols of 512 bars over (3 min)",
    "restart": "seconds without signals after a `kill -9`, beside a plain worker (6 min; installs OpenAI's client once)",
    "symbols": "time to take over, memory and fold of one worker with 100, 1,000 and 10,000 symbols (15 min)",
    "traces": "processor time of market service and worker with traces and without (2 min)",
    "backtest": "time and memory of a backtest of 100,000 bars, stopped and resumed half way (11 min)",
    "modes": "decisions a minute of the demo's real model: mode `flash` against mode `fast` (10 min; fetches 98 MB the first time)",
    "luck": "how often the report takes luck for skill, and finds an edge of a given size (20 min)",
    "redis_clients": "answers a second of one Redis connection and of a pool, 0, 1 and 3 ms away (2 min)",
    "console": "the live page under 500 events a second for five minutes (8 min; needs Chromium)",
    "peers": "the worker beside others on five stream libraries and none (30 min; only by name: it installs their libraries)",
    "vision": "charts a second, drawn, looked at and through the whole service (1 min)",
}
_BY_NAME: Final = frozenset({"peers"})
"""Run only when they are named."""

_TEACHING: Final = """
Each runs in a process of its own, starts the Kafka, Redis and simulator that it needs on loopback, and ends them. The figures depend
on the machine and on what else runs on it: the results name both. What is compared runs side by side, by turns.

  python -m benchmarks                  all of them; `make bench` is the same
  python -m benchmarks fold rebuild     these two
  python -m benchmarks --quick          all of them in two minutes: prints, and stores nothing
  python -m benchmarks report           writes docs/benchmarks.md and docs/scaling.md anew from benchmarks/results/
  python -m benchmarks.fold --help      more of one of them

The GPU's own figures come from benchmarks/gpu/, on a GPU host.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; return 1 when one could not be run, and not when it missed its target."""
    width = max(map(len, BENCHMARKS))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, text in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Measures Aquiline, and keeps the figures in benchmarks/results/NAME.json.\n\nbenchmarks:\n{listed}",
        epilog=_TEACHING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="which to run (default: all), or `report`")
    parser.add_argument("--quick", action="store_true", help="short runs, printed only: their figures say less")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.names if name not in {*BENCHMARKS, "report"}]:
        parser.error(f"no benchmark is called {unknown[0]!r}; there are {', '.join(BENCHMARKS)}, and `report`")
    wanted = (
        [name for name in options.names if name != "report"] if options.names else [name for name in BENCHMARKS if name not in _BY_NAME]
    )
    failed = [name for name in wanted if not _run(name, quick=options.quick)]
    if wanted and not options.quick:
        print(f"kept in {RESULTS}; `python -m benchmarks report` writes {DOCUMENT.name} from it")
    if "report" in options.names:
        write_document(list(BENCHMARKS))
        scaling.write_document()
        print(f"written: {DOCUMENT}, {scaling.DOCUMENT}")
    return 1 if failed else 0


def _run(name: str, *, quick: bool) -> bool:
    print(f"{name}: {BENCHMARKS[name]}", flush=True)
    with tempfile.TemporaryDirectory(prefix="aquiline-benchmark-") as folder:
        out = Path(folder) / "result.json" if quick else RESULTS / f"{name}.json"
        shorter = ["--seconds", "0.2"] if name == "vision" else ["--quick"]
        command = [sys.executable, "-m", f"benchmarks.{name}", "--out", str(out), *(shorter if quick else [])]
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)  # noqa: S603 - ours
        if done.returncode != 0:
            print(f"{name}: could not be run (exit status {done.returncode}); what it said stands above")
            return False
        result: dict[str, Any] = orjson.loads(out.read_bytes())
    print(results_table(result), flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
