"""Reliability of probabilities, and the temperature that `aquiline calibrate signals` fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from schemas import ExitReason, SignalOutcome
from services.cli.calibrate import app
from services.core.errors import ServiceError
from services.scoring.report import ReportInput, build
from services.scoring.report.reliability import bins
from services.scoring.report.temperature import fit_temperature
from tests.unit.scoring.report.market import HOUR_MS, START_MS, outcome

OTHERS = ("sell", "exit", "hold")


def outcomes(count: int, overconfident: float = 1.0, seed: int = 1) -> list[SignalOutcome]:
    """Return completed positions, one an hour, whose action's probability is right at 1 and too high above it."""
    generator, found = np.random.default_rng(seed), []
    for number in range(count):
        true = generator.dirichlet([2.0, 1.0, 1.0, 1.0])
        said = true**overconfident / (true**overconfident).sum()
        gained = bool(generator.random() < true[0])
        one = outcome(
            number=number,
            entry_ms=START_MS + number * HOUR_MS,
            exit_ms=START_MS + (number + 1) * HOUR_MS,
            net=0.01 if gained else -0.01,
            reason=ExitReason.TARGET if gained else ExitReason.STOP,
        )
        shares = dict(zip(("buy", *OTHERS), said.tolist(), strict=True))
        found.append(SignalOutcome.model_validate(one.model_dump() | {"mode": "flash", "probabilities": shares}))
    return found


def test_bins_count_every_forecast_once_with_what_happened() -> None:
    found = bins(np.array([0.05, 0.1, 0.19, 0.95, 1.0]), np.array([False, True, False, True, True]))
    assert [(one.name, one.count) for one in found] == [("0.0 to 0.1", 1), ("0.1 to 0.2", 2), ("0.9 to 1.0", 2)]
    assert [one.gained.value for one in found] == [0.0, 0.5, 1.0]
    assert found[1].forecast == pytest.approx(0.145)


def test_the_report_scores_probabilities_and_says_what_knowing_nothing_would_score() -> None:
    found = build(ReportInput("t", outcomes(400), {}, 0.0, {})).probabilities
    assert found is not None
    assert found.count == 400 == sum(one.count for one in found.bins)
    assert found.brier.value < found.base_brier
    assert found.brier.low is not None
    assert build(ReportInput("t", [outcome()], {}, 0.0, {})).probabilities is None


def test_overconfidence_is_cooled_and_the_later_positions_show_it() -> None:
    found = fit_temperature(outcomes(3_000, overconfident=3.0))
    assert found.temperature == pytest.approx(3.0, rel=0.2)
    assert found.better
    assert found.after.brier < found.before.brier
    assert (found.fitted, found.shown) == (2_100, 900)
    assert sum(one.count for one in found.after.bins) == 900


def test_right_probabilities_are_left_nearly_as_they_are() -> None:
    assert fit_temperature(outcomes(3_000)).temperature == pytest.approx(1.0, rel=0.2)


def test_positions_that_were_open_when_the_later_ones_began_are_used_for_neither() -> None:
    held = outcomes(200)
    long = held[100].model_copy(update={"ts_exit_ms": START_MS + 500 * HOUR_MS})
    found = fit_temperature([*held[:100], long, *held[101:]])
    assert (found.fitted, found.shown) == (139, 60)


def test_too_few_positions_are_refused_with_what_is_needed() -> None:
    with pytest.raises(
        ServiceError, match="99 completed positions of mode `flash` carry probabilities, and a temperature takes at least 100"
    ):
        fit_temperature([*outcomes(99), *(one.model_copy(update={"mode": "fast"}) for one in outcomes(300)[200:])])


def test_the_command_prints_both_reliabilities_and_what_to_set_and_draws_them(tmp_path: Path) -> None:
    file, plot = tmp_path / "outcomes.jsonl", tmp_path / "reliability.svg"
    file.write_bytes(b"\n".join(one.encode() for one in outcomes(1_500, overconfident=3.0)) + b"\n")
    ran = CliRunner(env={"COLUMNS": "140"}).invoke(app, ["signals", "--outcomes", str(file), "--plot", str(plot)])
    assert ran.exit_code == 0, ran.output
    assert "Set fusion.flash_temperature = " in ran.output
    assert ran.output.count("said on average") == 2
    assert plot.read_text().startswith("<svg xmlns=")


def test_a_plot_that_is_no_svg_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["signals", "--outcomes", str(tmp_path / "none.jsonl"), "--plot", "a.png"])
    assert "name a file that ends in .svg" in str(ran.exception)
