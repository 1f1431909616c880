"""What every table of a settings or strategy file is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A table: its values never change, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
