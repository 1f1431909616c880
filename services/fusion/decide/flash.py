"""Mode `flash`: an action from the log-probabilities of its labels, with prices from the settings' ATR multiples.

One token is asked for, so that a decision takes a prefill of what is new and one step of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from services.core.fusion_settings import FusionSettings
from services.fusion.decide.answer import Abstain, Answer, Entry, Stand
from services.fusion.prompt.labels import LabelAction, Labels

_DIGITS = 6
"""Of a probability: more says nothing, and a batch on the GPU changes them."""


@dataclass(frozen=True, slots=True)
class FlashAnswer:
    """What the log-probabilities mean: `probabilities` by action, summing to 1, and `margin`, by which the first leads the second."""

    answer: Answer
    first: LabelAction
    """The likeliest action, also where the answer is to abstain."""
    probabilities: Mapping[LabelAction, float]
    margin: float

    def text(self, rationale: str | None = None) -> str:
        """Return the answer as the audit keeps it: one JSON object."""
        said = {"action": self.answer.action, "probabilities": self.probabilities, "margin": self.margin}
        return orjson.dumps(said if rationale is None else said | {"rationale": rationale}).decode()


def label_shares(logprobs: NDArray[np.float64], labels: Labels, temperature: float = 1.0) -> dict[LabelAction, float]:
    """Return the probabilities of the actions among themselves, from `logprobs`, natural logarithms of shape (labels,)."""
    scaled = logprobs / temperature
    weights = np.exp(scaled - scaled.max())
    return dict(zip(labels.texts, (weights / weights.sum()).round(_DIGITS).tolist(), strict=True))


def flash_answer(logprobs: NDArray[np.float64], labels: Labels, settings: FusionSettings) -> FlashAnswer:
    """Return the answer of `logprobs`, natural logarithms of shape (labels,), in the labels' order.

    The probabilities are those among the labels: what the model would have said instead of one is left out. A lead below
    `flash_min_margin` abstains. Of two that are equally likely the labels' order chooses, and the margin is 0.
    """
    probabilities = label_shares(logprobs, labels, settings.flash_temperature)
    first, second = sorted(probabilities, key=lambda action: -probabilities[action])[:2]
    margin = round(probabilities[first] - probabilities[second], _DIGITS)
    if margin < settings.flash_min_margin:
        reason = f"{first} leads {second} by {margin:.3f}, less than {settings.flash_min_margin:g}"
        return FlashAnswer(Abstain(action="abstain", reason=reason), first, probabilities, margin)
    return FlashAnswer(_view(first, probabilities[first], settings), first, probabilities, margin)


def _view(action: LabelAction, probability: float, settings: FusionSettings) -> Answer:
    conviction, horizon = round(100 * probability), settings.flash_horizon_bars
    if action == "exit" or action == "hold":  # noqa: PLR1714 - a comparison with a tuple does not narrow the type
        return Stand(action=action, conviction=conviction, horizon=horizon)
    side = 1 if action == "buy" else -1
    return Entry(
        action=action,
        conviction=conviction,
        horizon=horizon,
        entry=side * settings.flash_entry_tenths_atr,
        stop=-side * settings.flash_stop_tenths_atr,
        target=side * settings.flash_target_tenths_atr,
    )
