"""A finding of `aquiline doctor`: a check, its level, a sentence, and how to fix what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `sentence` states what was found, `fix` how to fix it; `fix` is empty when nothing is wrong."""

    check: str
    level: Level
    sentence: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the finding as JSON has it."""
        return {"check": self.check, "level": self.level, "sentence": self.sentence, "fix": self.fix}


def ok(check: str, sentence: str) -> Finding:
    """Return a finding of something that is right."""
    return Finding(check, "ok", sentence)


def warn(check: str, sentence: str, fix: str) -> Finding:
    """Return a finding of something that works but should be improved."""
    return Finding(check, "warn", sentence, fix)


def fail(check: str, sentence: str, fix: str) -> Finding:
    """Return a finding of something that does not work, or breaks a guarantee."""
    return Finding(check, "fail", sentence, fix)


def skipped(check: str, sentence: str) -> Finding:
    """Return a finding of something that was not checked, with the reason."""
    return Finding(check, "skipped", sentence)
