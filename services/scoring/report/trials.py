"""How many settings were tried before these: from the trials that a backtest's folder keeps, and from a settings file's history.

The best of many trials looks good by luck; the deflated Sharpe ratio takes their number into account.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from services.core.errors import ServiceError
from services.scoring.report.model import Report
from services.scoring.report.report_input import Trials

TRIALS: Final = "trials.jsonl"


class Trial(BaseModel):
    """One set of settings that was run on some data."""

    model_config = ConfigDict(frozen=True)

    data: str
    """A hash of the data: trials on other data do not count."""
    settings: str
    """A hash of all that shapes the result."""
    daily_sharpe: float | None
    """None where the period is too short for one, or nothing was traded."""


def trials_before(folder: Path, data: str, settings: str) -> Trials:
    """Return the trials on `data` in a folder, those with `settings` left out; raise ServiceError when they cannot be read."""
    by_settings = {one.settings: one for one in _read(folder) if one.data == data and one.settings != settings}
    sharpes = [one.daily_sharpe for one in by_settings.values() if one.daily_sharpe is not None]
    return Trials(len(by_settings), tuple(sharpes))


def trials_beside(outcomes: Path) -> Trials:
    """Return the trials before the last one of the folder that a file of outcomes lies in; none where the folder keeps none."""
    every = _read(outcomes.parent)
    return trials_before(outcomes.parent, every[-1].data, every[-1].settings) if every else Trials()


def promotions_before(config: Path | None) -> Trials:
    """Return how many other texts the history of a settings file holds, which `aquiline promote` writes."""
    if config is None:
        return Trials()
    texts = {hashlib.sha256(file.read_bytes()).digest() for file in config.with_name(f"{config.name}.history").glob("[0-9]*.toml")}
    return Trials(len(texts - {hashlib.sha256(config.read_bytes()).digest()}))


def add_trial(folder: Path, data: str, settings: str, report: Report) -> None:
    """Add a trial with its result to a folder; raise ServiceError when it cannot be written."""
    measures = None if report.net is None else report.net.measures
    sharpe = None if measures is None or measures.deflated is None else measures.deflated.daily_sharpe
    line = Trial(data=data, settings=settings, daily_sharpe=sharpe).model_dump_json() + "\n"
    try:
        with (folder / TRIALS).open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ServiceError(f"{folder / TRIALS} cannot be written: {error.strerror}") from error


def _read(folder: Path) -> list[Trial]:
    file = folder / TRIALS
    if not file.exists():
        return []
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(Trial.model_validate_json(line))
        except ValidationError as error:
            raise ServiceError(f"{file}, line {number} is no trial ({error.errors()[0]['msg']}); delete the line") from error
    return found
