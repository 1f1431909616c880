"""Finds the metric and label names in a PromQL expression. It checks no syntax; promtool does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

_TOKEN: Final = re.compile(
    r"""
      "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*'   # strings
    | \[[^\]]*\]                              # windows
    | [A-Za-z_:][A-Za-z0-9_:]*                # names
    | [0-9][A-Za-z0-9.]*                      # numbers and durations
    | =~ | !~ | != | >= | <= | ==
    | \S
    """,
    re.VERBOSE,
)
_NAME: Final = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_GROUPING: Final = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS: Final = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan", "start", "end"})


@dataclass(slots=True)
class Names:
    """`metrics` maps each metric to the labels of its selectors; `grouped` holds labels of aggregations and joins."""

    metrics: dict[str, set[str]] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)


def names_in(expression: str) -> Names:
    """Return the names in `expression`; raise ValueError for a selector without a metric name, which cannot be checked."""
    found = Names()
    tokens = _TOKEN.findall(expression)
    at = 0
    while at < len(tokens):
        token = tokens[at]
        after = tokens[at + 1] if at + 1 < len(tokens) else ""
        if token in _GROUPING:
            labels, at = _until(tokens, at + 1, ")") if after == "(" else ([], at + 1)
            found.grouped.update(label for label in labels if _NAME.fullmatch(label))
            continue
        if token == "{":  # noqa: S105 - a bracket
            raise ValueError(f"a selector of {expression!r} has no metric name")
        # A name before a bracket is a function; one before `by` an aggregation.
        if _NAME.fullmatch(token) and token.lower() not in _WORDS and after != "(" and after not in {"by", "without"}:
            labels, at = _until(tokens, at + 1, "}") if after == "{" else ([], at + 1)
            found.metrics.setdefault(token, set()).update(_matched(labels))
            continue
        at += 1
    return found


def _until(tokens: list[str], start: int, end: str) -> tuple[list[str], int]:
    """Return the tokens between the bracket at `start` and `end`, and the position after `end`."""
    stop = tokens.index(end, start)
    return tokens[start + 1 : stop], stop + 1


def _matched(tokens: list[str]) -> Iterator[str]:
    for token, after in pairwise(tokens):
        if _NAME.fullmatch(token) and after in {"=", "!=", "=~", "!~"}:
            yield token
