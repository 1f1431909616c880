"""What engines answer, parsed at the edge: fields that are there but of no use count as absent, and what is not a reply is one error.

Servers put nulls, lists and strings where numbers belong; a usable answer must not be lost to that.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from services.inference.engine import EngineError


def _count(value: object) -> int | None:
    """Return a whole number of at least 0; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value < 0 or value % 1:  # noqa: PLR0124 - NaN
        return None
    return int(value)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _measure(value: object) -> float | None:
    """Return a number of at least 0; None for anything else."""
    number = _number(value)
    return number if number is not None and number >= 0 else None


def _name(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _text(value: object) -> str:
    """Return a text; of a list of parts, their texts, as chat completions may give it."""
    if isinstance(value, list):
        return "".join(_text(part.get("text")) if isinstance(part, dict) else _text(part) for part in value)
    return value if isinstance(value, str) else ""


def _table(value: object) -> object:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> object:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


Count = Annotated[int | None, BeforeValidator(_count)]
Number = Annotated[float | None, BeforeValidator(_number)]
Measure = Annotated[float | None, BeforeValidator(_measure)]
Name = Annotated[str | None, BeforeValidator(_name)]
Text = Annotated[str, BeforeValidator(_text)]
Table = BeforeValidator(_table)
"""For a nested reply: an empty one where the server put something else."""

Objects = BeforeValidator(_objects)
"""For a list of replies: what is no object is left out."""


class Reply(BaseModel):
    """A reply or a part of one; what is not named is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Details(Reply):
    cached_tokens: Count = None


class Counts(Reply):
    """`usage` of OpenAI's APIs."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    prompt_tokens_details: Annotated[_Details, Table] = Field(default_factory=_Details)


R = TypeVar("R", bound=Reply)


def loads(payload: bytes, where: str) -> Any:
    """Return the JSON of `payload`; raise EngineError, `engine_broke`."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise EngineError("engine_broke", f"{where} sent what is not JSON: {payload[:80]!r}") from error


def parse(kind: type[R], value: object, where: str) -> R:
    """Return `value`, decoded JSON, as a reply; raise EngineError, `engine_broke`, when it is no object."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise EngineError("engine_broke", f"{where} sent {orjson.dumps(value)[:80]!r}; expected an object") from error
