"""The skill of a weights file, stored beside it.

`aquiline vision evaluate` writes it and messages carry it, so that a prompt shows `p_up` only of a model that beats chance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas import Skill
from services.vision.forecaster import ForecasterError

_SUFFIX: Final = ".evaluation.json"


class _Evaluated(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sha256: str
    """Of the weights that were evaluated."""
    skill: Skill


def evaluation_file(weights: Path) -> Path:
    """Return where the evaluation of `weights` is stored: beside them."""
    return weights.with_suffix(_SUFFIX)


def write_skill(weights: Path, sha256: str, skill: Skill) -> None:
    """Write the skill of the weights file with this SHA-256."""
    evaluation_file(weights).write_text(_Evaluated(sha256=sha256, skill=skill).model_dump_json(indent=1) + "\n")


def read_skill(weights: Path, sha256: str) -> Skill | None:
    """Return the skill of the weights file with this SHA-256; None when it was not evaluated, or other weights were.

    Raises ForecasterError when the evaluation cannot be read.
    """
    path = evaluation_file(weights)
    if not path.is_file():
        return None
    try:
        evaluated = _Evaluated.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ForecasterError(
            f"evaluation {str(path)!r} is not what `aquiline vision evaluate` writes ({error.errors()[0]['msg']}); "
            "write it again, or remove it"
        ) from error
    return evaluated.skill if evaluated.sha256 == sha256 else None


def training_log_of(weights: Path) -> Path:
    """Return where the training log of a weights file is."""
    return weights.with_suffix(".training.json")
