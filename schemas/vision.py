"""What a vision model saw in the chart image of a window of bars."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas.base import Interval, Label, Message, Name, Part, Symbol, TimeMs, Unit

MAX_PATTERNS = 16


class Image(Part):
    """The chart image that was looked at; the image itself does not travel."""

    spec: Label = Field(description="The drawing's rule and version, such as `jkx-60/1`.")
    width: Annotated[int, Field(ge=1, le=4096)]
    height: Annotated[int, Field(ge=1, le=4096)]
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$", description="Hash of the pixels, in hex.")]


class Detector(Part):
    """The model that looked."""

    name: Label
    version: Label


class Pattern(Part):
    """A chart pattern, with the bars of the window (0 is the oldest) that it spans, both included."""

    label: Name
    score: Unit
    first_bar: Annotated[int, Field(ge=0, le=1023)]
    last_bar: Annotated[int, Field(ge=0, le=1023)]


class VisionFeatures(Message):
    """What a detector saw in the `window_bars` bars that end at `window_end_ms`."""

    symbol: Symbol
    interval: Interval
    window_end_ms: TimeMs = Field(description="`ts_close_ms` of the window's last bar.")
    window_bars: Annotated[int, Field(ge=1, le=1024)]
    image: Image
    detector: Detector
    p_up: Unit = Field(description="The model's probability that the market is higher after its horizon.")
    patterns: Annotated[list[Pattern], Field(max_length=MAX_PATTERNS)]

    @model_validator(mode="after")
    def _inside_window(self) -> Self:
        for pattern in self.patterns:
            if not pattern.first_bar <= pattern.last_bar < self.window_bars:
                raise ValueError(
                    f"pattern {pattern.label} spans bars {pattern.first_bar} to {pattern.last_bar}, outside a window of {self.window_bars} bars"
                )
        return self
