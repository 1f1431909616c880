"""The product's answer: its JSON schema as the worker sends it, and whether a text is such an answer, complete and in order."""

from __future__ import annotations

import json
from typing import Any

CONVICTION = {"type": "integer", "minimum": 0, "maximum": 100}
HORIZON = {"type": "integer", "minimum": 1, "maximum": 99}
LEVEL = {"type": "integer", "minimum": -99, "maximum": 99}
PRINTABLE = r"^[ !#-\[\]-~]{{{least},{most}}}$"
"""Printable ASCII without quote and backslash. xgrammar 0.2.1 lets raw control characters into a string that is bounded by
`maxLength` alone, which no JSON parser takes: 23 of 120 random walks through that grammar ended so, none with this pattern."""


def _text(least: int, most: int) -> dict[str, Any]:
    return {"type": "string", "pattern": PRINTABLE.format(least=least, most=most)}


RATIONALE = _text(0, 160)


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


STAND_IN = {
    "anyOf": [
        _object(
            action={"enum": ["buy", "sell"]},
            conviction=CONVICTION,
            horizon=HORIZON,
            entry=LEVEL,
            stop=LEVEL,
            target=LEVEL,
            rationale=RATIONALE,
        ),
        _object(action={"enum": ["exit", "hold"]}, conviction=CONVICTION, horizon=HORIZON, rationale=RATIONALE),
        _object(action={"const": "abstain"}, reason=_text(1, 80), rationale=RATIONALE),
    ]
}


def schema_text() -> tuple[str, str]:
    """Return the schema's JSON text and where it is from: the worker's own where its module loads, else the same by hand."""
    try:
        from services.fusion.decide.answer import ANSWER_SCHEMA  # noqa: PLC0415 - the worker's packages need not be on a GPU host
    except ImportError as error:
        return json.dumps(STAND_IN, separators=(",", ":")), f"stand-in ({error})"
    schema, narrowed = json.loads(ANSWER_SCHEMA), False
    for branch in schema["anyOf"]:
        for name, kind in branch["properties"].items():
            if kind.get("type") == "string" and "maxLength" in kind and "pattern" not in kind:
                branch["properties"][name] = _text(kind.get("minLength", 0), kind["maxLength"])
                narrowed = True
    source = "services.fusion.decide.answer" + (", its strings narrowed to printable ASCII" if narrowed else "")
    return json.dumps(schema, separators=(",", ":")), source


def line_fault(text: str) -> str | None:
    """Return what is wrong with an answer on a line, None when nothing is."""
    from services.fusion.decide.answer import AnswerError, AnswerReader  # noqa: PLC0415 - as above

    reader = AnswerReader(thinking=False)
    try:
        reader.feed(text)
        reader.finish("stop")
    except AnswerError as error:
        return str(error)
    return None


def fault(text: str, schema: str) -> str | None:
    """Return what is wrong with an answer, None when it is complete, valid and has its keys in the schema's order."""
    import jsonschema  # noqa: PLC0415 - only the run with a grammar needs it

    try:
        value = json.loads(text)
    except ValueError as error:
        return f"no JSON: {error}"
    parsed = json.loads(schema)
    try:
        jsonschema.validate(value, parsed)
    except jsonschema.ValidationError as error:
        return f"invalid: {error.message[:200]}"
    for branch in parsed.get("anyOf", [parsed]):
        if jsonschema.Draft202012Validator(branch).is_valid(value) and list(value) == list(branch["properties"]):
            return None
    return f"keys out of order: {list(value)}"
