"""The combinations of settings that the tuner tries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from services.inference.launcher.presets import EnginePart, Preset, SpeculationPart


def candidates(
    preset: Preset,
    *,
    steps: Sequence[int],
    topks: Sequence[int],
    draft_tokens: Sequence[int],
    windows: Sequence[int | None],
    backends: Sequence[str],
) -> list[Preset]:
    """Return the preset with every possible combination, its own first.

    With top-k 1 the draft is a chain, and the number of draft tokens follows from the steps; a tree holds more tokens than steps.
    """
    found: list[Preset] = [preset]
    for step, topk, window, backend in product(steps, topks, windows, backends):
        for tokens in [step + 1] if topk == 1 else sorted({count for count in draft_tokens if count > step}):
            made = preset.model_copy(
                update={
                    "engine": EnginePart.model_validate(preset.engine.model_dump() | {"attention_backend": backend}),
                    "speculation": SpeculationPart.model_validate(
                        preset.speculation.model_dump() | {"steps": step, "topk": topk, "draft_tokens": tokens, "draft_window": window}
                    ),
                }
            )
            if made not in found:
                found.append(made)
    return found


def label(preset: Preset) -> str:
    """Return a combination in a few characters, such as `3/1/4 flashinfer window 4096`."""
    speculation = preset.speculation
    window = f" window {speculation.draft_window}" if speculation.draft_window else ""
    return f"{speculation.steps}/{speculation.topk}/{speculation.draft_tokens} {preset.engine.attention_backend}{window}"
