"""The numbered history of a settings file, through edits by hand, crashes and rollbacks of rollbacks."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.core.errors import ServiceError
from services.promotion.settings_history import History


@pytest.fixture
def history(tmp_path: Path) -> History:
    file = tmp_path / "live.toml"
    file.write_text("one")
    return History(file)


def promote(history: History, text: str) -> int:
    with history.locked():
        history.current("me")
        return history.change(text, action="promoted", actor="me", reason="better").number


def roll_back(history: History) -> int:
    with history.locked():
        number = history.before(history.current("me"))
        history.change(history.text(number), action="rolled back", actor="me", reason="worse", restores=number)
        return number


def test_each_version_is_kept_as_it_was_with_who_and_why(history: History) -> None:
    assert [promote(history, "two"), promote(history, "three")] == [2, 3]
    assert [(one.number, one.action, one.actor, one.reason) for one in history.versions()] == [
        (1, "found", "me", "as it was found"),
        (2, "promoted", "me", "better"),
        (3, "promoted", "me", "better"),
    ]
    assert [history.text(number) for number in (1, 2, 3)] == ["one", "two", "three"]
    assert history.file.read_text() == "three"


def test_rolling_back_goes_one_back_each_time_and_ends_at_the_first(history: History) -> None:
    promote(history, "two")
    promote(history, "three")
    assert [roll_back(history), history.file.read_text()] == [2, "two"]
    assert [roll_back(history), history.file.read_text()] == [1, "one"]
    with pytest.raises(ServiceError, match="there is no earlier one"):
        roll_back(history)
    promote(history, "four")
    assert [roll_back(history), history.file.read_text()] == [1, "one"], "a promotion is undone to what was in effect when it came"


def test_what_was_done_by_hand_is_a_version_that_can_be_had_again(history: History) -> None:
    promote(history, "two")
    history.file.write_text("by hand")
    promote(history, "three")
    assert [one.action for one in history.versions()] == ["found", "promoted", "edited by hand", "promoted"]
    assert [roll_back(history), history.file.read_text()] == [3, "by hand"]


def test_the_files_permissions_stay(history: History) -> None:
    history.file.chmod(0o640)
    promote(history, "two")
    assert history.file.stat().st_mode & 0o777 == 0o640


def test_a_promotion_cut_short_before_the_file_was_replaced_never_happened(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(history, "two")
    with monkeypatch.context() as cut:
        cut.setattr(Path, "replace", _dies)
        with pytest.raises(KeyboardInterrupt):
            promote(history, "three")
    assert history.file.read_text() == "two"
    assert [roll_back(history), history.file.read_text()] == [1, "one"]
    assert [one.action for one in history.versions()] == ["found", "promoted", "rolled back"]


def test_a_promotion_cut_short_after_the_file_was_replaced_is_in_effect(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as cut:
        cut.setattr(Path, "unlink", _dies)
        with pytest.raises(KeyboardInterrupt):
            promote(history, "two")
    assert history.file.read_text() == "two"
    with history.locked():
        assert history.current("me").number == 2
    assert [roll_back(history), history.file.read_text()] == [1, "one"]


def test_only_one_changes_a_file_at_a_time(history: History) -> None:
    with history.locked(), pytest.raises(ServiceError, match="another process is changing"), History(history.file).locked():
        pass


def test_a_version_that_was_tampered_with_is_not_brought_back(history: History) -> None:
    promote(history, "two")
    (history.folder / "0001.toml").write_text("other")
    with pytest.raises(ServiceError, match="has been changed since"):
        roll_back(history)
    assert history.file.read_text() == "two"
    with pytest.raises(ServiceError, match="has no version 9"):
        history.text(9)
    (history.folder / "0002.json").write_text("{}")
    with pytest.raises(ServiceError, match="not a valid version record"):
        history.versions()


def _dies(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


class AnyOrder(RuleBasedStateMachine):
    """Whatever is done in whichever order, every text that was in effect is in the history, and rolling back brings the last other one."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.seen: list[str] = []

    @initialize()
    def begin(self) -> None:
        self.history = History(Path(self.folder.name) / "live.toml")
        self.history.file.write_text("0")
        with self.history.locked():
            self.history.current("me")
        self.seen = ["0"]

    @rule(number=st.integers(1, 5))
    def promote(self, number: int) -> None:
        promote(self.history, f"{len(self.seen)}/{number}")
        self.seen.append(self.history.file.read_text())

    @rule()
    def edit(self) -> None:
        text = f"hand {len(self.seen)}"
        self.history.file.write_text(text)
        self.seen.append(text)
        with self.history.locked():
            self.history.current("me")

    @precondition(lambda self: len(self.seen) > 1)
    @rule()
    def roll_back(self) -> None:
        before = self.history.file.read_text()
        try:
            roll_back(self.history)
        except ServiceError:
            assert before == "0"
            return
        assert self.history.file.read_text() != before

    @invariant()
    def nothing_is_lost(self) -> None:
        versions = self.history.versions()
        assert set(self.seen) == {self.history.text(one.number) for one in versions}
        assert [one.number for one in versions] == list(range(1, len(versions) + 1))

    def teardown(self) -> None:
        self.folder.cleanup()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=10, stateful_step_count=10, deadline=None)
