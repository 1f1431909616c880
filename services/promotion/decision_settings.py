"""The settings that shape decisions: what a comparison compares and a promotion copies. The others belong to the deployment."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import orjson

from services.core.settings import Settings
from services.fusion.prompt.version import version_of

DEPLOYMENT_SETTINGS: Final = frozenset(
    {
        "fusion.group",
        "fusion.log_id",
        "fusion.start_from",
        "fusion.symbols",
        "fusion.max_symbols",
        "fusion.max_unfinished",
        "fusion.pause_at_unfinished",
        "fusion.drain_ms",
        "fusion.commit_interval_ms",
        "fusion.max_dead_letter_ratio",
        "fusion.dead_letter_window",
        "engine.api_key",
    }
)
"""Settings of `fusion` and `engine` that a promotion leaves alone: they say which worker it is and where it runs."""

STRATEGY: Final = "fusion.strategy"

SECTIONS: Final = ("engine", "fusion")


def decision_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that shape decisions by dotted key, with JSON values."""
    return {key: value for key, value in _all(settings).items() if key not in DEPLOYMENT_SETTINGS}


def deployment_settings(settings: Settings) -> dict[str, Any]:
    """Return the other settings of the same sections."""
    return {key: value for key, value in _all(settings).items() if key in DEPLOYMENT_SETTINGS}


def decision_settings_hash(settings: Settings) -> str:
    """Return a hash of the settings that shape decisions."""
    return hashlib.sha256(orjson.dumps(decision_settings(settings), option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def _all(settings: Settings) -> dict[str, Any]:
    sections = {name: getattr(settings, name).model_dump(mode="json") for name in SECTIONS}
    found = {f"{name}.{field}": value for name, section in sections.items() for field, value in section.items()}
    # As one unit: the prompt version, a hash of everything that it says.
    return found | {STRATEGY: version_of(settings.fusion.strategy)}
