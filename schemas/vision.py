"""Vision features: what a model makes of the chart image of a window of bars."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas.base import Interval, Label, Message, Name, Part, Symbol, TimeMs, Unit

MAX_PATTERNS = 16


class Image(Part):
    """The chart image that the features are of; the image itself is not in the message."""

    spec: Label = Field(description="The drawing's rule and version, such as `jkx-60/1`.")
    width: Annotated[int, Field(ge=1, le=4096, description="Width in pixels.")]
    height: Annotated[int, Field(ge=1, le=4096, description="Height in pixels.")]
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$", description="Hash of the pixels, in hex.")]


class Skill(Part):
    """How well a model told rises from other windows out of sample: 0.5 is chance, 1 is always."""

    auc: Unit = Field(description="The area under its receiver operating characteristic.")
    auc_low: Unit = Field(description="The lower end of the 95 % interval of `auc`.")
    auc_high: Unit = Field(description="The upper end of the 95 % interval of `auc`.")

    @property
    def beats_chance(self) -> bool:
        """Return whether the whole interval lies above chance."""
        return self.auc_low > 0.5  # noqa: PLR2004 - chance


class Detector(Part):
    """The model that made the features."""

    name: Label = Field(description="The model's name.")
    version: Label = Field(description="The version of its weights.")
    horizon_bars: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="How many bars ahead `p_up` looks; absent when the model does not say."
    )
    skill: Skill | None = Field(
        default=None, description="From the model's card. A prompt shows `p_up` only of a model whose skill beats chance for certain."
    )


class Pattern(Part):
    """A chart pattern, with the bars of the window (0 is the oldest) that it spans, both included."""

    label: Name = Field(description="The pattern's name, such as `double_bottom`.")
    score: Unit = Field(description="How clearly it is there, from 0 to 1.")
    first_bar: Annotated[int, Field(ge=0, le=1023, description="Its first bar in the window.")]
    last_bar: Annotated[int, Field(ge=0, le=1023, description="Its last bar in the window.")]


class VisionFeatures(Message):
    """What a detector makes of the `window_bars` bars that end at `window_end_ms`."""

    symbol: Symbol
    interval: Interval
    window_end_ms: TimeMs = Field(description="`ts_close_ms` of the window's last bar.")
    window_bars: Annotated[int, Field(ge=1, le=1024, description="How many bars the chart shows.")]
    image: Image = Field(description="The chart image.")
    detector: Detector = Field(description="Which model made them.")
    p_up: Unit = Field(description="The model's probability that the market is higher after its horizon.")
    patterns: Annotated[list[Pattern], Field(max_length=MAX_PATTERNS, description="The patterns it found, at most 16.")]

    @model_validator(mode="after")
    def _inside_window(self) -> Self:
        for pattern in self.patterns:
            if not pattern.first_bar <= pattern.last_bar < self.window_bars:
                raise ValueError(
                    f"pattern {pattern.label} spans bars {pattern.first_bar} to {pattern.last_bar}, outside a window of {self.window_bars} bars"
                )
        return self
