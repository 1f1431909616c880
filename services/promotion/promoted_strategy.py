"""The strategy of a promotion: its folder is copied beside the live settings file, under its hash, so that no later edit changes live.

Every version of the live file names the copy that it was promoted with; going back brings back the strategy as it was.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import tomlkit

from services.core.errors import ServiceError
from services.fusion.prompt.version import version_of
from services.promotion.decision_settings import STRATEGY
from services.promotion.settings_change import Change
from services.strategy.folder import copy, read
from services.strategy.model import STRATEGY_SETTINGS


class PromotedStrategy(NamedTuple):
    """A candidate's strategy: its folder, and its prompt version."""

    folder: Path
    version: str

    def path_beside(self, live: Path) -> Path:
        """Return where the copy lies, relative to the live settings file."""
        return Path(f"{live.name}.history", "strategies", self.version)

    def copy_beside(self, live: Path) -> None:
        """Copy the folder; raise ServiceError when it, or a copy from an earlier promotion, is no longer what was compared."""
        to = live.parent / self.path_beside(live)
        if to.exists():
            if version_of(read(to)) != self.version:
                raise ServiceError(f"{to}, copied by an earlier promotion, has been edited since; restore it from {self.folder}")
            return
        made = to.with_name(f".{to.name}.new")
        shutil.rmtree(made, ignore_errors=True)
        copy(self.folder, made)
        if version_of(read(made)) != self.version:
            shutil.rmtree(made)
            raise ServiceError(f"{self.folder} has changed while it was promoted; compare it again")
        made.rename(to)


def strategy_of(file: Path, version: str) -> PromotedStrategy | None:
    """Return the strategy that a settings file names, None where it names none."""
    named = tomllib.loads(file.read_text()).get("fusion", {}).get("strategy")
    return None if named is None else PromotedStrategy(file.parent / named, version)


def with_strategy(text: str, folder: str | None, wanted: list[Change]) -> tuple[str, list[Change]]:
    """Return a settings file's `text` naming the strategy in `folder`, or none, and those of `wanted` that it has to spell out.

    What a strategy sets is taken out of the text where one is named: it has one place.
    """
    document = tomlkit.parse(text)
    if "fusion" not in document:
        document["fusion"] = tomlkit.table()
    table: Any = document["fusion"]
    left = [change for change in wanted if change.key != STRATEGY]
    if folder is None:
        table.pop("strategy", None)
        return tomlkit.dumps(document), left
    table["strategy"] = folder
    for name in STRATEGY_SETTINGS:
        table.pop(name, None)
    return tomlkit.dumps(document), [change for change in left if change.key.removeprefix("fusion.") not in STRATEGY_SETTINGS]
