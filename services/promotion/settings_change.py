"""What a promotion changes in the live settings file: the settings that shape decisions. Comments and all else stay. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tomlkit
from pydantic import BaseModel, ConfigDict

from services.core.settings import Settings
from services.promotion.decision_settings import decision_settings


class Change(BaseModel):
    """One setting, by its dotted key; None where it has no value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        """Return the change as text."""
        return f"{self.key}: {_text(self.before)} -> {_text(self.after)}"


def changes(live: Settings, candidate: Settings) -> list[Change]:
    """Return the decision settings in which the candidate differs from live."""
    before, after = decision_settings(live), decision_settings(candidate)
    return [Change(key=key, before=before[key], after=after[key]) for key in before if before[key] != after[key]]


def applied(text: str, wanted: Sequence[Change]) -> str:
    """Return a settings file's `text` with these changes; a setting without a value is removed."""
    document = tomlkit.parse(text)
    for change in wanted:
        section, field = change.key.split(".", 1)
        if section not in document:
            document[section] = tomlkit.table()
        table: Any = document[section]
        if change.after is None:
            table.pop(field, None)
        elif isinstance(change.after, dict):
            inline = tomlkit.inline_table()
            inline.update(change.after)
            table[field] = inline
        else:
            table[field] = change.after
    return tomlkit.dumps(document)


def _text(value: Any) -> str:
    return "nothing" if value is None else repr(value)
