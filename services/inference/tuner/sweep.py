"""The sweep: starts, warms, measures and stops an engine for each combination, and stores each result as soon as it is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from services.inference.engine import Engine, EngineError, TokenIds
from services.inference.launcher.presets import LaunchError, Preset
from services.inference.tuner.grid import label
from services.inference.tuner.measuring import Cell, cell
from services.inference.tuner.prompts import cut

Starter = Callable[[Preset], AbstractAsyncContextManager[Engine]]
"""Starts an engine for a combination and stops it again; raises LaunchError when it does not come up."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What each combination is measured on."""

    prompts: Sequence[TokenIds]
    lengths: Sequence[int]
    at_once: Sequence[int]
    tail_tokens: int = 64
    answer_tokens: int = 80
    rounds: int = 5


@dataclass(slots=True)
class Row:
    """A combination and what was found; `failure` is why there is nothing."""

    preset: Preset
    cells: list[Cell] = field(default_factory=list)
    failure: str | None = None
    seconds: float = 0.0

    @property
    def score(self) -> float | None:
        """Return the mean over all cells of the median answer time in milliseconds: less is better; None when it failed."""
        return None if self.failure or not self.cells else sum(one.total_ms for one in self.cells) / len(self.cells)

    def as_data(self) -> dict[str, Any]:
        """Return the row for a JSON file."""
        return {
            "combination": label(self.preset),
            "preset": self.preset.model_dump(exclude_none=True),
            "score_ms": self.score,
            "failure": self.failure,
            "seconds": round(self.seconds, 1),
            "cells": [asdict(one) for one in self.cells],
        }


async def sweep(
    candidates: Sequence[Preset],
    plan: Plan,
    start: Starter,
    *,
    out: Path,
    say: Callable[[str], None],
    budget_s: float | None = None,
) -> list[Row]:
    """Measure every candidate and return the rows, the best first; `out` (JSON) is whole after each.

    A candidate that does not start or breaks is a row with its failure. With `budget_s`, none is started that would, at the
    pace of the slowest so far, not end in time.
    """
    for length in plan.lengths:
        cut(plan.prompts, length, plan.tail_tokens)  # before anything starts
    rows: list[Row] = []
    began = time.monotonic()
    for number, preset in enumerate(candidates, 1):
        slowest = max((row.seconds for row in rows), default=0.0)
        if budget_s is not None and time.monotonic() - began + slowest > budget_s:
            say(f"[{number}/{len(candidates)}] {label(preset)}: not tried, the time is up")
            continue
        say(f"[{number}/{len(candidates)}] {label(preset)}: starting")
        row = Row(preset)
        at = time.monotonic()
        try:
            async with start(preset) as engine:
                await _measure(engine, plan, row, say)
        except (LaunchError, EngineError) as error:
            row.failure = str(error)
            say(f"  failed: {error}")
        row.seconds = time.monotonic() - at
        rows.append(row)
        _keep(rows, out)
    return sorted(rows, key=lambda row: (row.score is None, row.score or 0.0))


def _keep(rows: Sequence[Row], out: Path) -> None:
    out.write_bytes(orjson.dumps([row.as_data() for row in rows], option=orjson.OPT_INDENT_2))


async def _measure(engine: Engine, plan: Plan, row: Row, say: Callable[[str], None]) -> None:
    for length in plan.lengths:
        prompts = cut(plan.prompts, length, plan.tail_tokens)
        for count in plan.at_once:
            found = await cell(engine, prompts, at_once=count, rounds=plan.rounds, answer_tokens=plan.answer_tokens)
            row.cells.append(found)
            step = "" if found.step_ms is None else f", {found.step_ms:.1f} ms a step"
            accepted = "" if found.accept_length is None else f", {found.accept_length:.2f} accepted"
            say(f"  {length:,} tokens, {count} at once: first {found.first_ms:.0f} ms, answer {found.total_ms:.0f} ms{step}{accepted}")
