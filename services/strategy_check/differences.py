"""In which values, and in which words of the rules, two strategies differ."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from services.fusion.prompt.rules import rules
from services.fusion.prompt.version import version_of
from services.strategy.folder import read
from services.strategy.model import Strategy


class Differences(NamedTuple):
    """Whether two strategies differ, and the lines that say how."""

    differ: bool
    lines: list[str]


def differences(before: Path, after: Path) -> Differences:
    """Compare the strategies in two folders; raise StrategyError where one cannot be read."""
    one, other = read(before), read(after)
    lines = [f"{before}: {version_of(one)}", f"{after}: {version_of(other)}"]
    if one == other:
        return Differences(differ=False, lines=[*lines, "They say the same."])
    first, second = (rules(strategy, "line").replace(". ", ".\n").splitlines() for strategy in (one, other))
    words = difflib.unified_diff(first, second, fromfile=f"rules of {before}", tofile=f"rules of {after}", lineterm="", n=0)
    return Differences(differ=True, lines=[*lines, *_value_changes(one, other), *words])


def _value_changes(one: Strategy, other: Strategy) -> Iterator[str]:
    values, others = _flat(one.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
    for key in dict.fromkeys([*values, *others]):
        if key != "instructions" and values.get(key) != others.get(key):
            yield f"{key}: {values.get(key)!r} -> {others.get(key)!r}"
    if list(one.intervals) != list(other.intervals) and one.intervals == other.intervals:
        yield f"intervals: {list(one.intervals)} -> {list(other.intervals)}"


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": item for name, item in value.items()}
        elif key == "facts":
            flat |= {f"facts.{name}": {"place": place, **fact} for place, fact in enumerate(value) for name in fact.pop("names")}
        else:
            flat[key] = value
    return flat
