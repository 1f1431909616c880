"""What every benchmark shares: its command line, the machine it ran on, and its result's file."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from services.core import logs, memory_tuning
from services.core.settings import LogSettings

RESULTS: Final = Path(__file__).parent / "results"
_LIBRARIES: Final = ("aiohttp", "aiokafka", "numpy", "orjson", "pydantic", "redis", "tokenizers")


@dataclass(frozen=True, slots=True)
class Target:
    """What was aimed at: `got` in `unit` must be at most `limit`, or at least it."""

    what: str
    limit: float
    at_least: bool
    got: float
    unit: str = ""

    @property
    def met(self) -> bool:
        """Return whether it was reached."""
        return self.got >= self.limit if self.at_least else self.got <= self.limit


@dataclass(slots=True)
class Measured:
    """A benchmark's figures: `rows` are a table with one set of columns each; `setting` says what was run."""

    rows: list[dict[str, Any]]
    setting: dict[str, Any]
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Measure = Callable[[bool], Coroutine[Any, Any, Measured]]
"""Takes `quick`: shorter, with figures that say less."""


def run_alone(name: str, doc: str | None, measure: Measure, argv: Sequence[str] | None = None) -> int:
    """Run one benchmark as a command, and write its result; return the exit status."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a short run, to see it work: its figures say less, and are printed only")
    parser.add_argument("--out", type=Path, help=f"file to write (default: {RESULTS / name}.json; with --quick none)")
    options = parser.parse_args(argv)
    out: Path | None = options.out or (None if options.quick else RESULTS / f"{name}.json")
    logs.configure(LogSettings(level="error"), service="benchmark")
    memory_tuning.freeze()  # as a service's process does
    load_before, started = os.getloadavg()[0], time.perf_counter()
    measured = asyncio.run(measure(options.quick))
    result = {
        "name": name,
        "measured": dt.datetime.now(tz=dt.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", f"benchmarks.{name}", *(["--quick"] if options.quick else [])]),
        "took_s": round(time.perf_counter() - started, 1),
        "machine": machine(),
        "load_average": {"before": round(load_before, 2), "after": round(os.getloadavg()[0], 2)},
        "setting": measured.setting,
        "rows": measured.rows,
        "targets": [asdict(target) | {"met": target.met} for target in measured.targets],
        "notes": measured.notes,
    }
    written = orjson.dumps(result, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if out is None:
        print(written.decode(), end="")
        return 0
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(written)
    return 0


def before(name: str) -> list[dict[str, Any]]:
    """Return the rows that `benchmarks/results/before/NAME.json` holds of an earlier version, which is named in each.

    They were measured in a tree of that version with the benchmark of this one copied into it, on the machine of the newer rows.
    """
    file = RESULTS / "before" / f"{name}.json"
    rows: list[dict[str, Any]] = orjson.loads(file.read_bytes()) if file.is_file() else []
    return rows


def machine() -> dict[str, Any]:
    """Return what ran this: processor, cores, memory, Python and the libraries that matter."""
    return {
        "cpu": next((text for key, text in _fields("/proc/cpuinfo") if key == "model name"), platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
    }


def rss_mb() -> float:
    """Return the memory that this process holds now, in 10^6 bytes; the most it ever held where the system does not say."""
    for key, text in _fields("/proc/self/status"):
        if key == "VmRSS":
            return int(text.split()[0]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def say(text: str) -> None:
    """Tell on standard error how far a run has come."""
    print(f"  {text}", file=sys.stderr, flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the `share` (0 to 1) percentile of `values`."""
    return float(np.percentile(np.asarray(values), 100 * share))


def _fields(file: str) -> list[tuple[str, str]]:
    path = Path(file)
    lines = path.read_text().splitlines() if path.exists() else []
    return [(key.strip(), text.strip()) for key, _, text in (line.partition(":") for line in lines)]
