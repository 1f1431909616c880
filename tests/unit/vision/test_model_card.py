"""The model card says what the figures say, and the committed one is of the committed weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from services.vision.evaluation import Judged
from services.vision.forecast_quality import Estimate
from services.vision.loading import SHIPPED_WEIGHTS
from services.vision.model_card import TrainingFacts, verdict

ROOT = Path(__file__).parents[3]


def judged(name: str, auc: tuple[float, float, float]) -> Judged:
    return Judged(name, {"AUC": Estimate(*auc), "accuracy": Estimate(0.5, 0.4, 0.6)}, [])


@pytest.mark.parametrize(
    ("auc", "said"),
    [
        ((0.49, 0.47, 0.52), "cannot be told from chance"),
        ((0.55, 0.52, 0.58), "better than chance"),
        ((0.45, 0.42, 0.48), "wrong more often than chance"),
    ],
)
def test_the_verdict_follows_the_interval(auc: tuple[float, float, float], said: str) -> None:
    models = [judged("chart network", auc), judged("logistic regression", (0.5, 0.4, 0.6)), judged("majority", (0.5, 0.5, 0.5))]
    assert said in verdict(models)
    assert f"AUC {auc[0]:.3f} [{auc[1]:.3f}, {auc[2]:.3f}]" in verdict(models)


def test_the_committed_card_log_and_weights_belong_together() -> None:
    facts = TrainingFacts(**json.loads(SHIPPED_WEIGHTS.with_suffix(".training.json").read_text()))
    data = SHIPPED_WEIGHTS.read_bytes()
    assert facts.sha256 == hashlib.sha256(data).hexdigest()
    assert facts.bytes == len(data) <= 3_000_000
    card = (ROOT / "docs" / "vision-model-card.md").read_text()
    assert facts.sha256 in card
    assert f"version `{facts.sha256[:12]}`" in card
