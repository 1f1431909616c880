"""Figures of the long runs (`make fuzz`, `make soak`, `make chaos`), stored under benchmarks/results/ with the machine that made them."""

from __future__ import annotations

import datetime as dt
import os
from typing import Any

import orjson

from benchmarks.harness import RESULTS, machine


def store(run: str, name: str, figures: dict[str, Any]) -> None:
    """Put `figures` under `name` into the results of `run`, where the environment says STORE=1; a row of the same name is replaced."""
    if os.environ.get("STORE") != "1":
        return
    file = RESULTS / f"{run}.json"
    held = orjson.loads(file.read_bytes()) if file.exists() else {}
    rows = {row["name"]: row for row in held.get("rows", [])}
    rows[name] = {"name": name, **figures}
    result = {
        "name": run,
        "measured": dt.datetime.now(tz=dt.UTC).isoformat(timespec="seconds"),
        "command": os.environ.get("STORED_BY", f"make {run}"),
        "machine": machine(),
        "rows": list(rows.values()),
    }
    file.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
