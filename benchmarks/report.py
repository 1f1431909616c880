"""Turns the result files into tables, and into `docs/benchmarks.md`, so that no figure is typed by hand."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks.harness import RESULTS

RUNS: Final = ("cluster", "containers")
"""Runs of real systems: `make test-NAME` stores its figures, and the docstring of tests/NAME says what it does and what stands in."""
_ROOT: Final = Path(__file__).parents[1]
DOCUMENT: Final = _ROOT / "docs" / "benchmarks.md"
_HEAD: Final = """<!-- Written by `python -m benchmarks report` from benchmarks/results/*.json; do not edit. -->

# Benchmarks

`make bench` (or `python -m benchmarks [NAME…]`) runs these and stores what they measured in `benchmarks/results/NAME.json`, with the
machine, the date, the command and the load average; `--quick` has a short look and stores nothing; `--help` tells more. Each starts the
Kafka, Redis and simulator that it needs on loopback and ends them. What is compared is measured in one run, by turns, so that other load
on the machine falls on both sides. A missed target is said to be missed.

No GPU takes part here, but where a heading says so: where an engine's time matters, it is the simulator's, which is calibrated on a
measured one. What was measured of engines on a GPU has its own tools, in `benchmarks/gpu/`.
"""


def write_document(names: Sequence[str]) -> None:
    """Write the document from what results there are, in the order of `names`; `NAME-….json` is NAME on another machine."""
    parts = [_HEAD]
    for name in names:
        file = RESULTS / f"{name}.json"
        parts.append(f"\n## {name}\n\n{_docstring(_module(name))}\n")
        parts.append(_section(name, orjson.loads(file.read_bytes())) if file.is_file() else "\nNot measured yet.\n")
        others = sorted(RESULTS.glob(f"{name}-*.json"))
        parts.extend(f"\n### {other.stem}\n{_section(name, orjson.loads(other.read_bytes()))}" for other in others)
    for name in RUNS:
        parts.append(f"\n## make test-{name}\n\n{_docstring(_ROOT / 'tests' / name / '__init__.py')}\n")
        file = RESULTS / f"{name}.json"
        parts.append(_section(name, orjson.loads(file.read_bytes())) if file.is_file() else "\nNot measured yet.\n")
    DOCUMENT.write_text("".join(parts))


def results_table(result: Mapping[str, Any]) -> str:
    """Return a result as lines for a terminal: rows in columns, then the targets."""
    rows: list[dict[str, Any]] = result["rows"]
    header = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[_shown(row.get(column, "")) for column in header] for row in rows]
    widths = [max(len(name), *(len(line[at]) for line in cells)) for at, name in enumerate(header)]
    lines = ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in [header, *cells]]
    return "\n".join([*lines, *(f"  {_verdict(target)}" for target in result.get("targets", [])), ""])


def _section(name: str, result: Mapping[str, Any]) -> str:
    rows: list[dict[str, Any]] = result["rows"]
    header = list(dict.fromkeys(column for row in rows for column in row))
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    lines.extend(f"| {' | '.join(_shown(row.get(column, '')) for column in header)} |" for row in rows)
    text = ["\n", "\n".join(lines), "\n"]
    if targets := result.get("targets"):
        text.extend(["\n", "\n".join(f"- {_verdict(target)}" for target in targets), "\n"])
    if notes := result.get("notes"):
        text.extend(["\n", "\n".join(notes), "\n"])
    if setting := result.get("setting"):
        text.append(f"\nRun with {', '.join(f'{key}: {_shown(value)}' for key, value in setting.items())}.\n")
    load = result.get("load_average")
    busy = f", load average {load['before']} before and {load['after']} after" if load else ""
    machine = ", ".join(f"{key} {value}" for key, value in result["machine"].items() if value is not None)
    text.append(f"\n{result['measured'][:10]}, `{result.get('command', f'python -m benchmarks.{name}')}`{busy}; {machine}.\n")
    return "".join(text)


def _module(name: str) -> Path:
    """Return the file of a benchmark, a module or a package."""
    file = _ROOT / "benchmarks" / f"{name}.py"
    return file if file.is_file() else file.with_suffix("") / "__init__.py"


def _docstring(file: Path) -> str:
    """Return a module's docstring without importing it: a benchmark may need torch."""
    said = ast.get_docstring(ast.parse(file.read_text()))
    assert said is not None
    return said


def _verdict(target: Mapping[str, Any]) -> str:
    bound = "at least" if target["at_least"] else "at most"
    unit = f" {target['unit']}" if target["unit"] else ""
    verdict = "met" if target["met"] else "missed"
    return f"{target['what']}: {_shown(target['got'])}{unit} ({bound} {_shown(target['limit'])}{unit} wanted): {verdict}"


def _shown(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 1 else f"{value:g}"
