"""Judges a weights file out of sample, and writes the model card, its plot, and the skill that the service publishes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from schemas import Candle, InstrumentEvent, Skill
from services.vision import model_card
from services.vision.evaluation import evaluate
from services.vision.forecaster import ForecasterError
from services.vision.loading import load_forecaster
from services.vision.skill import evaluation_file, training_log_of, write_skill
from services.vision.training_series import training_parts


def evaluate_weights(
    stocks: Mapping[str, Sequence[Candle]], splits: Sequence[InstrumentEvent], weights: Path, card: Path, plot: Path
) -> list[str]:
    """Evaluate, write `card`, `plot` and the evaluation beside `weights`, and return lines that say what was found.

    Raises ForecasterError, MissingDataError, and ModuleNotFoundError where an extra is not installed.
    """
    log = training_log_of(weights)
    if not log.is_file():
        raise ForecasterError(f"the training log {str(log)!r} is not there; `aquiline vision train` writes it beside the weights")
    forecaster = load_forecaster(weights)
    parts, series = training_parts(stocks, splits)
    evaluation = evaluate(parts, forecaster)
    for folder in (card.parent, plot.parent):
        folder.mkdir(parents=True, exist_ok=True)
    model_card.draw_calibration(evaluation, plot)
    facts = model_card.TrainingFacts(**json.loads(log.read_text()))
    auc = evaluation.models[0].figures["AUC"]
    write_skill(weights, facts.sha256, Skill(auc=round(auc.value, 4), auc_low=round(auc.low, 4), auc_high=round(auc.high, 4)))
    seen = os.path.relpath(plot, card.parent)
    card.write_text(model_card.markdown(evaluation, series, facts, forecaster.detector, seen))
    figures = [
        f"{model.name}: " + ", ".join(f"{name} {one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for name, one in model.figures.items())
        for model in evaluation.models
    ]
    return [model_card.verdict(evaluation.models), *figures, f"written: {card}, {plot}, {evaluation_file(weights)}"]
