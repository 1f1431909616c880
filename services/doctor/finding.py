"""What the doctor has to say: one finding a check, with the mend where there is something to mend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `sentence` says what is so, `mend` what to do about it, empty when there is nothing to do."""

    check: str
    level: Level
    sentence: str
    mend: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return it for machines."""
        return {"check": self.check, "level": self.level, "sentence": self.sentence, "mend": self.mend}


def ok(check: str, sentence: str) -> Finding:
    """Return a finding of something that is as it should be."""
    return Finding(check, "ok", sentence)


def warn(check: str, sentence: str, mend: str) -> Finding:
    """Return a finding of something that works and could be better."""
    return Finding(check, "warn", sentence, mend)


def fail(check: str, sentence: str, mend: str) -> Finding:
    """Return a finding of something that does not work, or will break a promise."""
    return Finding(check, "fail", sentence, mend)


def skipped(check: str, sentence: str) -> Finding:
    """Return a finding of something that was not looked at, and why."""
    return Finding(check, "skipped", sentence)
