"""JSON schemas and regular expressions to GBNF, llama.cpp's grammar notation.

llama.cpp converts schemas itself, but lets line breaks and blanks through, which a small model prints until its tokens run out. Only
what answers use is converted: of schemas, objects whose properties all have to be there, in order, strings, bounded integers and choices;
of regular expressions, literals, classes, groups, alternatives and counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

_CLASS: Final = re.compile(r"\^(\[(?:[^\]\\]|\\.)+\])\{(\d+),(\d+)\}\$")
_PLAIN: Final = '[^"\\\\\\x00-\\x1F]'


def grammar(schema: str) -> str:
    """Return the grammar of `schema` (JSON text); raise ValueError naming what cannot be converted."""
    return f"root ::= {_rule(orjson.loads(schema))}\n"


_REGEX_PART: Final = re.compile(
    r"(?P<syntax>\[(?:[^\]\\]|\\.)+\]|\(\?:|\((?!\?)|[)|?]|\{\d+(?:,\d*)?\})|\\(?P<escaped>[^A-Za-z0-9])|(?P<literal>[^\\\[\](){}|?*+.^$])",
    re.DOTALL,
)
"""Classes, groups, alternatives and counts are written alike in both notations; only what stands for itself has to be quoted."""


def regex_grammar(pattern: str) -> str:
    """Return the grammar of a regular expression that matches a whole answer; raise ValueError naming what cannot be converted."""
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        part = _REGEX_PART.match(pattern, at)
        if part is None:
            raise ValueError(
                f"{pattern[at : at + 8]!r} in the regular expression has no grammar here; "
                "expected literals, classes, groups, alternatives, ? and {m,n}"
            )
        syntax = part["syntax"]
        parts.append(_literal(part["escaped"] or part["literal"]) if syntax is None else "(" if syntax == "(?:" else syntax)
        at = part.end()
    return f"root ::= {' '.join(parts)}\n"


def _rule(schema: Mapping[str, Any]) -> str:
    choices: Sequence[Mapping[str, Any]] | None = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return _either([_rule(one) for one in choices])
    if "const" in schema:
        return _literal(orjson.dumps(schema["const"]).decode())
    if "enum" in schema:
        return _either([_literal(orjson.dumps(value).decode()) for value in schema["enum"]])
    kinds = {"object": _object, "string": _string, "integer": _integer}
    rule = kinds.get(str(schema.get("type")))
    if rule is None:
        raise ValueError(f"a schema with {orjson.dumps(schema).decode()[:200]} has no grammar here")
    return rule(schema)


def _object(schema: Mapping[str, Any]) -> str:
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties") or {}
    if not properties or set(schema.get("required") or ()) != set(properties):
        raise ValueError("an object has no grammar here unless all of its properties are required")
    parts = []
    for number, (name, value) in enumerate(properties.items()):
        parts += [_literal(("{" if not number else ",") + orjson.dumps(name).decode() + ":"), _rule(value)]
    return " ".join([*parts, '"}"'])


def _string(schema: Mapping[str, Any]) -> str:
    pattern = schema.get("pattern")
    if pattern is None:
        return f'"\\"" {_PLAIN}{{{schema.get("minLength", 0)},{schema.get("maxLength", "")}}} "\\""'
    match = _CLASS.fullmatch(pattern)
    if match is None:
        raise ValueError(
            f"the pattern {pattern!r} has no grammar here; expected one class of characters and how often, such as ^[a-z]{{1,8}}$"
        )
    characters, low, high = match.groups()
    return f'"\\"" {characters}{{{low},{high}}} "\\""'


def _integer(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if not isinstance(low, int) or not isinstance(high, int) or low > high:
        raise ValueError(f"an integer from {low} to {high} has no grammar here; expected both bounds")
    magnitudes = [_digits(max(low, 0), high)] if high >= 0 else []
    # No "-0", which JSON allows and no parser of ours expects.
    negative = [f'"-" {_digits(max(1, -high), -low)}'] if low < 0 else []
    return _either([*negative, *magnitudes])


def _digits(low: int, high: int) -> str:
    """Return the rule for whole numbers from `low` to `high`, neither negative, with one choice a run of like numbers.

    One choice a number would be right as well, and llama.cpp walks all choices for each token of its vocabulary.
    """
    choices = []
    while low <= high:
        size = 10
        while low % size == 0 and low and low + size - 1 <= high:
            size *= 10
        size //= 10
        # Numbers `low` to `last` differ in one digit and, below it, in everything.
        last = min(high, low + 9 * size - (low // size % 10) * size + size - 1)
        last = low + (last - low + 1) // size * size - 1
        head, first = divmod(low // size, 10)
        final = last // size % 10
        kept = f'"{head}" ' if head else ""
        rest = " [0-9]" * (len(str(size)) - 1)
        choices.append(f"{kept}[{first}-{final}]{rest}")
        low = last + 1
    return _either(choices)


def _either(rules: Sequence[str]) -> str:
    return f"({' | '.join(rules)})"


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
