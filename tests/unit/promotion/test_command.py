"""`aquiline promote` and `aquiline rollback` as an operator runs them, without Kafka."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from schemas import RunMode
from services.cli.promote import app as promote_app
from services.cli.rollback import app as rollback_app
from services.cli.shadow import store
from services.core.clock import SystemClock
from services.core.lifecycle import explain
from services.core.settings import load
from services.fusion.prompt.version import version_of
from services.promotion.comparison import Criteria, Expected, compare
from services.promotion.comparison_result import Comparison
from services.promotion.decision_settings import decision_settings_hash
from services.promotion.settings_history import History
from services.strategy.folder import new, read, shipped
from tests.unit.promotion.build_pairs import LENIENT, LIVE_VERSION, SHADOW_VERSION, bought

LIVE = """run_mode = "live"
[fusion]
group = "desk"
[engine]
kind = "rules"  # for the tests
"""
CANDIDATE = """run_mode = "shadow"
[fusion]
group = "candidate"
window_bars = 300
permits = 5
[engine]
kind = "rules"
"""


@dataclass
class Shell:
    """An operator's folder with the two files and a comparison of them."""

    folder: Path

    @property
    def live(self) -> Path:
        return self.folder / "live.toml"

    @property
    def candidate(self) -> Path:
        return self.folder / "candidate.toml"

    @property
    def comparison(self) -> Path:
        return self.folder / "comparison.json"

    def compare(self, criteria: Criteria = LENIENT, age_ms: int = 0, **changes: Any) -> Comparison:
        """Write the comparison of the two files as they are now."""
        sides = [bought(mode, range(120), **more) for mode, more in ((RunMode.LIVE, {}), (RunMode.SHADOW, changes))]
        expected = [
            Expected(decision_settings_hash(load(file)), version, "aq-1")
            for file, version in ((self.live, LIVE_VERSION), (self.candidate, SHADOW_VERSION))
        ]
        found = compare((sides[0], sides[1]), (expected[0], expected[1]), (), criteria, SystemClock().now_ms() - age_ms)
        store(found, self.comparison)
        return found

    def promote(self, *more: str) -> tuple[int, str]:
        """Return the exit status and what was said."""
        return _run(promote_app, "--live", str(self.live), "--candidate", str(self.candidate), "--reason", "a test", "--actor", "me", *more)

    def promote_compared(self, *more: str) -> tuple[int, str]:
        return self.promote("--comparison", str(self.comparison), *more)

    def roll_back(self, *more: str) -> tuple[int, str]:
        return _run(rollback_app, "--live", str(self.live), "--actor", "me", *more)


def _run(app: Any, *arguments: str) -> tuple[int, str]:
    ran = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)
    error = ran.exception
    if isinstance(error, Exception) and (explained := explain(error)) is not None:
        return explained[0], ran.output + "; ".join(explained[1])
    assert error is None or isinstance(error, SystemExit), error
    return ran.exit_code, ran.output


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    shell.live.write_text(LIVE)
    shell.candidate.write_text(CANDIDATE)
    return shell


def test_a_candidate_that_was_compared_is_promoted_and_rolled_back_to_the_byte(shell: Shell) -> None:
    found = shell.compare()
    assert found.passed
    status, said = shell.promote_compared()
    assert status == 0, said
    assert "kubectl" in said
    settings = load(shell.live)
    assert (settings.run_mode, settings.fusion.group) == (RunMode.LIVE, "desk")
    assert (settings.fusion.window_bars, settings.fusion.permits) == (300, 5)
    version = History(shell.live).versions()[-1]
    assert (version.action, version.actor, version.reason, version.override) == ("promoted", "me", "a test", None)
    assert version.comparison == found.model_dump(mode="json")
    assert [str(change) for change in version.changes] == ["fusion.permits: 3 -> 5", "fusion.window_bars: 256 -> 300"]
    status, said = shell.roll_back("--reason", "worse")
    assert status == 0, said
    assert shell.live.read_text() == LIVE
    status, said = shell.roll_back("--list")
    assert (status, "rolled back to 1" in said) == (0, True)


def test_a_dry_run_says_what_would_change_and_changes_nothing(shell: Shell) -> None:
    shell.compare()
    status, said = shell.promote_compared("--dry-run")
    assert (status, "fusion.window_bars: 256 -> 300" in said) == (0, True)
    assert shell.live.read_text() == LIVE
    assert not History(shell.live).folder.exists()


def test_without_a_comparison_that_bears_it_nothing_is_promoted(shell: Shell) -> None:
    def refused(why: str, *more: str) -> None:
        status, said = shell.promote(*more)
        assert (status, why in said) == (1, True), said
        assert shell.live.read_text() == LIVE

    given = ("--comparison", str(shell.comparison))
    refused("there is no --comparison")
    shell.compare(Criteria())
    refused("decided pairs is 120, expected at least 200", *given)
    shell.compare(replace(LENIENT, min_span_ms=3 * 3_600_000))
    refused("span is 119.0 min, expected at least 180 min", *given)
    shell.compare(age_ms=8 * 86_400_000)
    refused("the comparison is 8 days old", *given)
    shell.compare()
    shell.candidate.write_text(CANDIDATE.replace("300", "320"))
    refused("other settings than those now in the candidate file", *given)
    shell.compare()
    shell.live.write_text(LIVE.replace('group = "desk"', "min_gap_ms = 1"))
    assert "other settings than those now in the live file" in shell.promote(*given)[1]


def test_an_override_promotes_all_the_same_and_is_kept_with_its_reason(shell: Shell) -> None:
    status, said = shell.promote("--override", "the old engine is on fire")
    assert status == 0, said
    version = History(shell.live).versions()[-1]
    assert (version.override, version.comparison) == ("the old engine is on fire", None)


def test_an_override_where_none_is_needed_is_none(shell: Shell) -> None:
    shell.compare()
    assert shell.promote_compared("--override", "to be sure")[0] == 0
    assert History(shell.live).versions()[-1].override is None


def test_the_simulator_is_not_promoted_whatever_is_said(shell: Shell) -> None:
    shell.compare(source="simulator")
    status, said = shell.promote_compared("--override", "please")
    assert (status, "answered by the simulator" in said) == (2, True)
    assert shell.live.read_text() == LIVE


@pytest.mark.parametrize(
    ("live", "candidate", "why"),
    [
        (LIVE.replace("live", "demo", 1), CANDIDATE, "expected 'live'"),
        (LIVE, CANDIDATE.replace("shadow", "live", 1), "expected 'shadow'"),
        (LIVE, 'run_mode = "shadow"\n[engine]\nkind = "rules"\n', "have the same decision settings"),
        (LIVE + "\n[bus]\nrebalance_timeout_ms = 9000\n", CANDIDATE, "rebalance_timeout_ms"),
    ],
)
def test_what_cannot_go_live_is_refused_whatever_is_said(shell: Shell, live: str, candidate: str, why: str) -> None:
    shell.live.write_text(live)
    shell.candidate.write_text(candidate)
    status, said = shell.promote("--override", "please")
    assert (status, why in said) == (2, True), said
    assert shell.live.read_text() == live


def test_a_version_that_no_worker_would_start_with_is_not_brought_back(shell: Shell) -> None:
    assert shell.promote("--override", "first")[0] == 0
    promoted = shell.live.read_text()
    shell.live.write_text("nonsense = 1\n" + promoted)
    assert shell.roll_back("--reason", "by hand, and wrong", "--to", "2")[0] == 0
    status, said = shell.roll_back("--reason", "x", "--to", "3")
    assert (status, "no worker of this release would start" in said) == (2, True), said
    assert shell.live.read_text() == promoted


def test_variables_that_have_a_say_in_decisions_are_refused(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_FUSION__PERMITS", "9")
    status, said = shell.promote("--override", "please")
    assert (status, "AQUILINE_FUSION__PERMITS" in said) == (2, True)


def test_a_comparison_that_is_none_is_told(shell: Shell) -> None:
    shell.comparison.write_text("{}")
    assert "is not what `aquiline shadow compare --out` writes" in shell.promote_compared()[1]
    shell.comparison.unlink()
    assert "No such file" in shell.promote_compared()[1]


def test_rolling_back_wants_a_reason_and_something_to_go_back_to(shell: Shell) -> None:
    assert shell.roll_back()[0] == 2
    status, said = shell.roll_back("--reason", "x")
    assert (status, "there is no earlier one" in said) == (1, True)
    assert shell.roll_back("--reason", "x", "--to", "1") == (0, f"{shell.live} already has the text of version 1; nothing was changed.\n")


def test_a_strategy_is_promoted_as_one_unit_and_rolled_back_whatever_becomes_of_its_folder(shell: Shell) -> None:
    folder = shell.folder / "momentum"
    new(folder, "momentum")
    shell.live.write_text(LIVE.replace('group = "desk"', 'group = "desk"\nwindow_bars = 300'))
    shell.candidate.write_text(CANDIDATE.replace("window_bars = 300", 'strategy = "momentum"'))
    before = shell.live.read_bytes()
    shell.compare()
    status, said = shell.promote_compared()
    assert status == 0, said
    promoted = read(folder)
    assert f"fusion.strategy: '{version_of(shipped())}' -> '{version_of(promoted)}'" in said
    (folder / "instructions.md").write_text("Sell everything.")
    fusion = load(shell.live).fusion
    assert (fusion.strategy, fusion.permits, fusion.window_bars, fusion.group) == (promoted, 5, 256, "desk")
    shell.roll_back("--reason", "no good")
    assert shell.live.read_bytes() == before
    shell.roll_back("--to", "2", "--reason", "better after all")
    assert load(shell.live).fusion.strategy == promoted


def test_a_strategy_that_was_changed_after_its_comparison_is_not_promoted(shell: Shell) -> None:
    folder = shell.folder / "momentum"
    new(folder, "momentum")
    shell.candidate.write_text(CANDIDATE.replace("window_bars = 300", 'strategy = "momentum"'))
    shell.compare()
    (folder / "instructions.md").write_text("Sell everything.")
    status, said = shell.promote_compared()
    assert status != 0
    assert "other settings than those now in the candidate file" in said


def test_hooks_that_are_not_installed_here_are_noted_as_no_worker_starts_without_them(shell: Shell) -> None:
    folder = shell.folder / "momentum"
    new(folder, "momentum")
    with (folder / "strategy.toml").open("a") as file:
        file.write('[hooks]\ntriggers = ["absent"]\n')
    shell.candidate.write_text(CANDIDATE.replace("window_bars = 300", 'strategy = "momentum"'))
    shell.compare()
    status, said = shell.promote_compared("--dry-run")
    assert (status, "Note: the candidate's hooks and inputs cannot be loaded here (hooks.triggers names 'absent'" in said) == (0, True), (
        said
    )


def test_a_copy_that_was_edited_is_neither_promoted_again_nor_deleted(shell: Shell) -> None:
    folder = shell.folder / "momentum"
    new(folder, "momentum")
    shell.candidate.write_text(CANDIDATE.replace("window_bars = 300", 'strategy = "momentum"'))
    shell.compare()
    assert shell.promote_compared()[0] == 0
    (copied,) = (shell.folder / "live.toml.history" / "strategies").iterdir()
    assert shell.roll_back("--reason", "later")[0] == 0
    (copied / "instructions.md").write_text("Sell everything.")
    status, said = shell.promote_compared()
    assert (status, f"{copied}, copied by an earlier promotion, has been edited since" in said) == (1, True), said
    assert shell.live.read_text() == LIVE
    assert (copied / "instructions.md").read_text() == "Sell everything."
    (copied / "instructions.md").write_bytes((folder / "instructions.md").read_bytes())
    assert shell.promote_compared()[0] == 0


def test_a_candidate_of_the_shipped_strategy_takes_its_place_with_all_it_sets(shell: Shell) -> None:
    new(shell.folder / "momentum", "momentum")
    shell.live.write_text(LIVE.replace('group = "desk"', 'group = "desk"\nstrategy = "momentum"'))
    shell.compare()
    status, said = shell.promote_compared()
    assert status == 0, said
    fusion = load(shell.live).fusion
    assert (fusion.strategy, fusion.window_bars, fusion.permits) == (shipped(), 300, 5)
