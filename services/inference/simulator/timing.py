"""How long a GPU takes: a prefill step and a decode step, as functions with a handful of constants fitted to measurements.

One calibration file holds the constants and the measurements that they were fitted to; a test checks that they agree.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Part):
    """What the engine can hold: tokens of a prompt with its answer, of KV cache, of one prefill step; calls running at once."""

    context_tokens: Positive
    kv_capacity_tokens: Positive
    chunk_tokens: Positive
    max_running: Positive


class Speculation(_Part):
    """`accept_length`: mean tokens a verification step yields, bonus token included; at most `draft_tokens` of them."""

    accept_length: Annotated[float, Field(ge=1)]
    draft_tokens: Positive

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.accept_length > self.draft_tokens:
            raise ValueError(f"accept_length ({self.accept_length}) must not be above draft_tokens ({self.draft_tokens})")
        return self


class Timing(_Part):
    """Milliseconds.

    A prefill step has a fixed part, which it takes however little it computes, and its computation: a part for each token and one
    for each pair of tokens (attention). A decode step has a fixed part (the weights are read once), one for each call, and one for
    each token of the calls' contexts (the KV cache is read).
    """

    prefill_step_ms: NotNegative
    prefill_token_ms: NotNegative
    prefill_pair_ms: NotNegative
    step_ms: NotNegative
    step_call_ms: NotNegative
    step_token_ms: NotNegative


class Point(_Part):
    """A measurement: `at_once` calls of `prompt_tokens` each, of which `new_tokens` are not cached, `output_tokens` long."""

    what: str
    prompt_tokens: Positive
    new_tokens: Positive
    at_once: Positive
    output_tokens: Positive
    median_ms: Annotated[float, Field(gt=0)]


class Calibration(_Part):
    """A GPU, as `data/calibration-*.json` describe it."""

    source: str
    accelerator: str
    model: str
    engine: str
    limits: Limits
    limits_source: str
    speculation: Speculation
    timing: Timing
    fit: str
    tolerance: Annotated[float, Field(gt=0, lt=1)]
    points: list[Point]

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a calibration file; raise ValueError when it cannot be used."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ValueError(f"calibration file {str(path)!r} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise ValueError(f"calibration file {str(path)!r} cannot be used: {error}") from error

    def with_kv_capacity(self, tokens: int) -> Self:
        """Return the same GPU with room for `tokens` tokens of KV cache; raise ValueError unless it is positive."""
        if tokens < 1:
            raise ValueError(f"a KV capacity of {tokens} tokens is none; give at least 1")
        return self.model_copy(update={"limits": self.limits.model_copy(update={"kv_capacity_tokens": tokens})})

    def prefill_ms(self, pieces: list[tuple[int, int]]) -> float:
        """Return the time of one prefill step over `pieces`, each (tokens before it, its tokens)."""
        timing = self.timing
        computed = sum(timing.prefill_token_ms * new + timing.prefill_pair_ms * ((before + new) ** 2 - before**2) for before, new in pieces)
        return timing.prefill_step_ms + computed

    def decode_ms(self, contexts: list[int]) -> float:
        """Return the time of one decode step of calls with `contexts` tokens each."""
        timing = self.timing
        return timing.step_ms + timing.step_call_ms * len(contexts) + timing.step_token_ms * sum(contexts)


class Acceptance:
    """How many tokens the next verification step of one call yields: 1 to `draft_tokens`, drawn by the call's own seed.

    Each draft token is accepted with the same probability if the one before it was; it follows from the mean.
    """

    def __init__(self, speculation: Speculation, seed: str) -> None:
        """Start the sequence that `seed` stands for."""
        self._random = Random(seed)  # noqa: S311 - a simulation
        self._most = speculation.draft_tokens
        self._probability = _accept_probability(speculation)

    def draw(self) -> int:
        """Return the next number of tokens."""
        tokens = 1
        while tokens < self._most and self._random.random() < self._probability:
            tokens += 1
        return tokens


def _accept_probability(speculation: Speculation) -> float:
    """Solve 1 + p + p^2 + ... + p^(draft_tokens - 1) = accept_length for p, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if sum(middle**power for power in range(speculation.draft_tokens)) < speculation.accept_length:
            low = middle
        else:
            high = middle
    return low
