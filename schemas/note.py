"""Notes: short texts that are shown to the model as quotations, such as news, an economic calendar or a desk's remark."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from schemas.base import SYMBOL_PATTERN, Label, Message, Part, TimeMs

MAX_NOTE_CHARACTERS: Final = 500
ALL_SYMBOLS: Final = "*"
"""The key of notes on every symbol."""
MAX_BLACKOUT_AHEAD_MS: Final = 60 * 86_400_000
"""A blackout ends at most 60 days after its note was written: the topic keeps notes for 90, and a worker that starts reads them from there."""


class Blackout(Part):
    """A span in which nothing is decided."""

    from_ms: TimeMs = Field(description="The first instant in which nothing is decided.")
    until_ms: TimeMs = Field(description="The first instant in which decisions are made again; at most 60 days after `ts_ms`.")


class Note(Message):
    """A text on one symbol or on all. It is data: no prompt follows what it says."""

    symbol: Literal["*"] | Annotated[str, Field(pattern=SYMBOL_PATTERN)] = Field(description="One symbol, or `*` for all.")
    source: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,31}$", description="Who wrote it, such as `reuters` or `desk-2`.")]
    ts_ms: TimeMs = Field(description="When it was written; its age is counted from then.")
    text: Annotated[str, Field(min_length=1, max_length=MAX_NOTE_CHARACTERS, description="The text, on one line when it is shown.")]
    importance: Annotated[int, Field(ge=1, le=5, description="From 1 to 5; the most important notes are shown first.")] = 3
    note_id: Label | None = Field(
        default=None,
        description="A later note of the same symbol, source and `note_id` replaces this one, its blackout included.",
    )
    blackout: Blackout | None = Field(default=None, description="When decisions on the symbol are blocked; never when absent.")

    @model_validator(mode="after")
    def _lawful_blackout(self) -> Self:
        span = self.blackout
        if span is None:
            return self
        if span.until_ms <= span.from_ms:
            raise ValueError(f"blackout.until_ms {span.until_ms} must be after blackout.from_ms {span.from_ms}")
        if span.until_ms > self.ts_ms + MAX_BLACKOUT_AHEAD_MS:
            raise ValueError(
                f"blackout.until_ms {span.until_ms} is more than 60 days after ts_ms {self.ts_ms}; publish the note again nearer to it"
            )
        return self
