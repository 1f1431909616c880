"""What every table of a settings or strategy file is made of."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_LARGEST: Final = 2**53
"""JSON keeps integers exactly up to here: settings are hashed and exported as JSON."""


def _within_json(value: int) -> int:
    if value > _LARGEST:
        raise ValueError(f"at most {_LARGEST} is allowed")
    return value


Positive = Annotated[int, Field(gt=0), AfterValidator(_within_json)]
NotNegative = Annotated[int, Field(ge=0), AfterValidator(_within_json)]
WindowBars = Annotated[int, Field(gt=0, le=10_000)]
"""Closed bars of an interval in a prompt. 10,000 rows are more than 200,000 tokens, beyond the context of any engine here."""


class Section(BaseModel):
    """A table: its values never change, and unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
