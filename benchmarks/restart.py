"""What a `kill -9` costs: how long no signal comes, and how many bars get none in time, beside a plain worker on aiokafka.

Kafka, and the simulator of one H100 with warm prefixes; 200 symbols with prompts of 4K tokens, 10 bars a second. Five seconds into 200
bars the worker's process is killed and started again at once, as a supervisor does. `first timely s` runs from the kill to the append of
the first signal that is at most 3 s younger than its bar; `late or none` are the bars without such a signal. The plain worker is
`benchmarks/peers/clients/growing_window.py`, in an environment of its own. Both are static members of their groups. `no instance_id` is
the worker as a dynamic member: its group waits for the dead one until `bus.session_timeout_ms` has passed.

Half is aimed at, twice: half of the 4.7 s and 85 bars that were once measured of an earlier version, under other load; and half of what the
version before takes on this machine, in the first rows.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final

from benchmarks.feed import symbols
from benchmarks.harness import Measured, Target, before, run_alone, say
from benchmarks.peers.__main__ import content
from benchmarks.peers.catalogue import OURS
from benchmarks.peers.contest import Stage, killed, ready, running
from benchmarks.peers.plan import EPOCH_SLOTS, Plan
from benchmarks.peers.process import Worker
from benchmarks.prompts import window_for
from services.core.settings import BusSettings, EngineSettings
from services.fusion.service import load_tokenizer

PLAIN: Final = "growing window"
DYNAMIC: Final = f"{OURS}, no instance_id"
SYMBOLS: Final = 200
TOKENS: Final = 4_096
PER_S: Final = 10.0
_PATIENCE_S: Final = 20.0
"""How long bars are waited for, beside the time until the broker removes a dead member."""
ROUNDS: Final = 3
LONGEST_S: Final = 2.4
MOST_LATE: Final = 43
OF_BEFORE: Final = 0.5


@dataclass
class DynamicWorker(Worker):
    """The worker as a dynamic member of its group."""

    def config(self) -> Path:
        """Return a settings file without `bus.instance_id`."""
        file = super().config()
        file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith("instance_id")))
        return file


async def measure(quick: bool) -> Measured:  # noqa: FBT001 - the harness calls it
    """Kill each worker some times."""
    count, rounds = (40, 1) if quick else (SYMBOLS, ROUNDS)
    window = window_for(TOKENS, 4, load_tokenizer(EngineSettings()), symbols(1)[0])
    plan = Plan(count, window, PER_S, many_s=0.0, backlog=0)
    measured = Measured(
        rows=before("restart"),
        setting={"symbols": count, "window_bars": window, "epoch_slots": EPOCH_SLOTS, "bars/s": PER_S, "rounds": rounds},
    )
    with tempfile.TemporaryDirectory(prefix="aquiline-restart-") as folder:
        for name, of_rounds in ((OURS, rounds), (PLAIN, rounds), (DYNAMIC, 1)):
            measured.rows.append({"version": "now", **await _restarts(name, plan, Path(folder), of_rounds)})
            say(str(measured.rows[-1]))
    measured.targets = targets(measured.rows)
    return measured


def targets(rows: Sequence[Mapping[str, Any]]) -> list[Target]:
    """Return what is aimed at: half of two earlier measurements."""
    ours = {row["version"] == "now": row for row in rows if row["worker"] == OURS}
    first, late = "seconds to the first timely signal after a kill, median", "bars without a timely signal, median"
    now = ours[True]
    found = [
        Target(first, LONGEST_S, at_least=False, got=now["first timely s"], unit="s"),
        Target(late, MOST_LATE, at_least=False, got=now["late or none"]),
    ]
    if (earlier := ours.get(False)) is not None:
        for what, column, unit in ((first, "first timely s", "s"), (late, "late or none", "")):
            limit = round(OF_BEFORE * earlier[column], 2)
            found.append(
                Target(f"{what}, beside {earlier[column]} of {earlier['version']}", limit, at_least=False, got=now[column], unit=unit)
            )
    return found


async def _restarts(name: str, plan: Plan, folder: Path, rounds: int) -> dict[str, Any]:
    """Return one worker's row: medians of its restarts."""
    kind, worker_name = (DynamicWorker, OURS) if name == DYNAMIC else (Worker, name)
    async with running(worker_name, plan, content(), folder, kind) as stage:
        await stage.feed.play(plan.round, plan.per_s)  # every prefix is warm from here on
        rows = []
        for _ in range(rounds):
            rows.append(await _killed(stage))
            say(f"{name}: {rows[-1]}")
            await ready(stage)
    first = [one["first timely s"] for one in rows]
    return {
        "worker": name,
        "restarts": rounds,
        "first timely s": round(statistics.median(first), 1),
        "slowest s": max(first),
        "bars": rows[0]["bars"],
        **{column: round(statistics.median(one[column] for one in rows)) for column in ("late or none", "lost", "twice")},
    }


async def _killed(stage: Stage) -> dict[str, Any]:
    row = await killed(stage, BusSettings().session_timeout_ms / 1000 + _PATIENCE_S)
    first_s = row["first timely s"]
    return {
        "bars": row["bars"],
        "first timely s": inf if first_s is None else first_s,
        "late or none": row["bars"] - row["on time"],
        "lost": row["lost"],
        "twice": row["twice"],
    }


if __name__ == "__main__":
    sys.exit(run_alone("restart", __doc__, measure))
