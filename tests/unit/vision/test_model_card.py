"""The model card says what the figures say, and the committed one is of the committed weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from schemas import Skill
from services.vision.evaluation import Judged
from services.vision.forecast_quality import Estimate
from services.vision.forecaster import ForecasterError
from services.vision.loading import SHIPPED_WEIGHTS
from services.vision.model_card import TrainingFacts, verdict
from services.vision.skill import evaluation_file, read_skill, write_skill

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


def test_an_evaluation_counts_for_the_weights_that_it_is_of(tmp_path: Path) -> None:
    weights = tmp_path / "chart.safetensors"
    assert read_skill(weights, "a" * 64) is None
    write_skill(weights, "a" * 64, Skill(auc=0.55, auc_low=0.52, auc_high=0.58))
    assert read_skill(weights, "a" * 64) == Skill(auc=0.55, auc_low=0.52, auc_high=0.58)
    assert read_skill(weights, "b" * 64) is None
    evaluation_file(weights).write_text('{"sha256": "a"')
    with pytest.raises(ForecasterError, match=r"chart\.evaluation\.json.*write it again"):
        read_skill(weights, "a" * 64)


def test_the_committed_card_log_evaluation_and_weights_belong_together() -> None:
    facts = TrainingFacts(**json.loads(SHIPPED_WEIGHTS.with_suffix(".training.json").read_text()))
    data = SHIPPED_WEIGHTS.read_bytes()
    assert facts.sha256 == hashlib.sha256(data).hexdigest()
    assert facts.bytes == len(data) <= 3_000_000
    skill = read_skill(SHIPPED_WEIGHTS, facts.sha256)
    assert skill is not None
    assert not skill.beats_chance
    card = (ROOT / "docs" / "vision-model-card.md").read_text()
    assert facts.sha256 in card
    assert f"AUC {skill.auc:.3f} [{skill.auc_low:.3f}, {skill.auc_high:.3f}]" in card
    assert f"version `{facts.sha256[:12]}`" in card
