"""What every message shares: strict, frozen pydantic models with a version and a run mode, and their edge to bytes.

Within a `schema_version` unknown fields are ignored and counted, so that a newer producer never stops an older reader.
"""

from __future__ import annotations

import functools
import re
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field

INTERVAL_PATTERN: Final = r"^[1-9][0-9]{0,2}[smhdw]$"
SYMBOL_PATTERN: Final = r"^[A-Z0-9][A-Z0-9_-]{0,30}(\.[A-Z0-9]{1,4})?\.[A-Z0-9]{2,12}$"
DECIMAL_PATTERN: Final = r"^-?[0-9]{1,15}(\.[0-9]{1,12})?$"

Symbol = Annotated[str, Field(pattern=SYMBOL_PATTERN, description="An instrument with its venue: `AAPL.XNAS`.")]
Interval = Annotated[str, Field(pattern=INTERVAL_PATTERN, description="The length of a bar: `1m`, `15m`, `1h`, `1d`, `1w`.")]
TimeMs = Annotated[int, Field(ge=0, le=32_503_680_000_000, description="Milliseconds since 1970-01-01T00:00Z.")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Price = Annotated[float, Field(gt=0, lt=1e12, allow_inf_nan=False)]
DecimalPrice = Annotated[str, Field(pattern=DECIMAL_PATTERN, description="A price as a decimal string on the instrument's tick.")]
Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Label = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:+@,() -]*$")]

_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


class RunMode(StrEnum):
    """Who may act on a message: act only on `live` ones."""

    LIVE = "live"
    SHADOW = "shadow"
    REPLAY = "replay"
    DEMO = "demo"


@functools.lru_cache(maxsize=4096)
def interval_ms(interval: str) -> int:
    """Return the length of `interval` (`15m`) in milliseconds; raise ValueError with the value when it is none."""
    if not re.match(INTERVAL_PATTERN, interval):
        raise ValueError(f"interval {interval!r} is not a number from 1 to 999 followed by one of s, m, h, d, w, such as '15m'")
    return int(interval[:-1]) * _UNIT_MS[interval[-1]]


class Part(BaseModel):
    """A piece of a message: strict, frozen, finite."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", ser_json_inf_nan="strings")


class Message(Part):
    """A message on a topic."""

    schema_version: Literal[1] = Field(description="The version of this message's contract.")
    run_mode: RunMode = Field(strict=False, description="Act only on `live` messages.")

    def encode(self) -> bytes:
        """Return the message as UTF-8 JSON."""
        return orjson.dumps(self.model_dump(mode="python", exclude_none=True))

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Return the message in `value` (UTF-8 JSON); raise pydantic.ValidationError naming each field that is wrong."""
        return cls.model_validate_json(value)

    def unknown_fields(self) -> int:
        """Return how many top-level fields this version of the contract does not know."""
        return len(self.model_extra) if self.model_extra else 0
