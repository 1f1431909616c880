"""How many settings were tried is known from the folder, and makes a Sharpe ratio say less."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.core.errors import ServiceError
from services.scoring.report import Report, build
from services.scoring.report.report_input import Trials
from services.scoring.report.trials import TRIALS, add_trial, promotions_before, trials_before, trials_beside
from tests.unit.scoring.report.market import Plan, given


def report() -> Report:
    return build(given(Plan(bars=600)))


def test_settings_that_were_tried_on_the_same_data_count_once_each(tmp_path: Path) -> None:
    tried = report()
    assert tried.net is not None
    assert tried.net.measures is not None
    assert tried.net.measures.deflated is not None
    sharpe = tried.net.measures.deflated.daily_sharpe
    for data, settings in (("d", "a"), ("d", "b"), ("d", "b"), ("other", "c"), ("d", "now")):
        add_trial(tmp_path, data, settings, tried)
    assert trials_before(tmp_path, "d", "now") == Trials(2, (sharpe, sharpe))
    assert trials_beside(tmp_path / "outcomes.jsonl") == Trials(2, (sharpe, sharpe))


def test_a_folder_without_trials_has_none(tmp_path: Path) -> None:
    assert trials_beside(tmp_path / "outcomes.jsonl") == Trials() == trials_before(tmp_path, "d", "now")


def test_a_line_that_is_no_trial_is_named(tmp_path: Path) -> None:
    (tmp_path / TRIALS).write_text("nonsense\n")
    with pytest.raises(ServiceError, match=r"trials\.jsonl, line 1 is no trial"):
        trials_before(tmp_path, "d", "now")


def test_promotions_count_every_other_text_that_was_in_effect(tmp_path: Path) -> None:
    config, history = tmp_path / "live.toml", tmp_path / "live.toml.history"
    config.write_text("now")
    assert promotions_before(config) == Trials() == promotions_before(None)
    history.mkdir()
    for number, text in enumerate(("first", "second", "first", "now"), 1):
        (history / f"{number:04}.toml").write_text(text)
    assert promotions_before(config) == Trials(2)
