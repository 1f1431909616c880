"""Where settings come from beside variables and secret files: the settings file, and the folder of the strategy that it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, TomlConfigSettingsSource

from services.strategy.folder import TOML, StrategyError, read
from services.strategy.model import STRATEGY_SETTINGS

_BESIDE: Final = (("fusion", "strategy"), ("market", "features_file"))
"""Settings that name a strategy's files: in a settings file relative to it, so that all move together."""


class SettingsFile(TomlConfigSettingsSource):
    """The settings file."""

    def __call__(self) -> dict[str, Any]:
        """Return the file's values, paths of a strategy relative to the file."""
        values = super().__call__()
        for section, name in _BESIDE:
            table = values.get(section)
            if isinstance(table, dict) and isinstance(table.get(name), str) and isinstance(self.toml_file_path, Path):
                values = {**values, section: {**table, name: str(self.toml_file_path.parent / table[name])}}
        return values


class StrategyFolder(PydanticBaseSettingsSource):
    """What the strategy's folder sets. Deadlines, permits and epochs may be overridden; anything else has one place, the folder."""

    def __init__(self, settings_cls: type[BaseSettings], overrides: Mapping[str, Any]) -> None:
        """Take the worker's settings that this one run overrides, on its command line."""
        super().__init__(settings_cls)
        self._overrides = overrides

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return what pydantic-settings asks of a source for one field."""
        del field
        return self.current_state.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return what the folder sets and nothing else gives; raise StrategyError for a value with two places."""
        given = self.current_state.get("fusion", {})
        folder = given.get("strategy") if isinstance(given, dict) else None
        if not isinstance(folder, str | Path):
            return {}
        strategy = read(Path(folder))
        twice = sorted((given.keys() & STRATEGY_SETTINGS.keys()) - self._overrides.keys())
        if twice:
            places = ", ".join(f"fusion.{key} to {STRATEGY_SETTINGS[key]}" for key in twice)
            raise StrategyError(
                f"the strategy sets what the model is shown, when it is asked and within which limits: in {Path(folder) / TOML}, move "
                f"{places}, and remove each from settings file and variables"
            )
        # What is given takes a table's place as a whole: entries of two tables by interval would mix.
        return {"fusion": {key: value for key, value in strategy.worker_values().items() if key not in given}}
