"""The operator's switch, on a compacted topic keyed by scope."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from schemas.base import SYMBOL_PATTERN, Message, TimeMs


class HaltState(StrEnum):
    """Whether signals are published."""

    ACTIVE = "ACTIVE"
    HALTED = "HALTED"


class Control(Message):
    """Sets the state of one scope; a symbol is halted when it or `global` is."""

    scope: Literal["global"] | Annotated[str, Field(pattern=SYMBOL_PATTERN)] = Field(description="`global`, or one symbol.")
    state: HaltState = Field(strict=False, description="Whether signals of the scope are published.")
    reason: Annotated[str, Field(min_length=1, max_length=500, description="Why, in the operator's words.")]
    actor: Annotated[str, Field(min_length=1, max_length=100, description="Who changed the state.")]
    ts_ms: TimeMs
