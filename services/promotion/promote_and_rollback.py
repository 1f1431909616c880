"""Promotes a candidate's settings to live, or brings back an earlier version of the live file; refuses what no worker could run.

Both write through the settings history, so that each version, with who, when, why and the comparison, is kept.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from schemas import RunMode
from services.core.clock import SystemClock
from services.core.errors import ServiceError
from services.core.settings import Settings, SettingsError, load
from services.core.table_inputs import check_shown
from services.fusion.prompt.version import version_of
from services.fusion.service import engine_info
from services.inference.engine import EngineError
from services.promotion.comparison_result import Comparison
from services.promotion.decision_settings import SECTIONS, decision_settings_hash, deployment_settings
from services.promotion.promoted_strategy import PromotedStrategy, strategy_of, with_strategy
from services.promotion.settings_change import Change, applied, changes
from services.promotion.settings_history import History, Version
from services.strategy.folder import StrategyError
from services.strategy.hooks import Hooks

_DAY_MS: Final = 86_400_000
_MAX_AGE_MS: Final = 7 * _DAY_MS
_SECRET: Final = "AQUILINE_ENGINE__API_KEY"  # noqa: S105 - a variable's name


@dataclass(frozen=True, slots=True)
class Promotion:
    """A promotion that may be applied: the live file's new text, and what it rests on."""

    live: Path
    text: str
    changes: list[Change]
    comparison: Comparison | None
    override: str | None
    """Why it goes against its comparison; None where the comparison supports it."""
    strategy: PromotedStrategy | None
    """The candidate's, which is copied; None where it decides with the shipped one."""


def plan_promotion(live: Path, candidate: Path, comparison: Path | None, override: str | None, note: Callable[[str], None]) -> Promotion:
    """Return the promotion of `candidate` to `live`, checked; `note` gets what could not be checked. Nothing is written.

    Raises SettingsError where it must never happen, ServiceError where `override` could allow it.
    """
    _refuse_variables()
    before, after = load_in_mode(live, RunMode.LIVE, "--live"), load_in_mode(candidate, RunMode.SHADOW, "--candidate")
    wanted = changes(before, after)
    if not wanted:
        raise SettingsError(f"{live} and {candidate} have the same decision settings; there is nothing to promote")
    found = _read(comparison) if comparison is not None else None
    _refuse_simulator(after, found, note)
    try:
        Hooks.of(after.fusion.strategy)
        check_shown(after.fusion.strategy.inputs)
    except StrategyError as error:
        note(f"the candidate's hooks and inputs cannot be loaded here ({error}); no worker starts without them")
    against = objections(found, before, after)
    if against and override is None:
        raise ServiceError(
            f"not promoted: {'; '.join(against)}. Compare again with `aquiline shadow compare`, or give the reason for promoting it "
            "anyway with --override"
        )
    strategy = strategy_of(candidate, version_of(after.fusion.strategy))
    in_place = None if strategy is None else str(strategy.folder.resolve())
    made = _checked(_text(live, in_place, wanted), live)
    if _untouched(made) != _untouched(before) or changes(made, after):
        raise ServiceError(f"the layout of {live} does not allow writing the changes into it; make them by hand: {_listed(wanted)}")
    text = _text(live, None if strategy is None else str(strategy.path_beside(live)), wanted)
    return Promotion(live, text, wanted, found, override if against else None, strategy)


def promote(promotion: Promotion, actor: str, reason: str) -> Version:
    """Put a promotion into effect and return its version."""
    history = History(promotion.live)
    with history.locked():
        history.current(actor)
        if promotion.strategy is not None:
            promotion.strategy.copy_beside(promotion.live)
        return history.change(
            promotion.text,
            action="promoted",
            actor=actor,
            reason=reason,
            changes=promotion.changes,
            comparison=None if promotion.comparison is None else promotion.comparison.model_dump(mode="json"),
            override=promotion.override,
        )


def roll_back(history: History, to: int | None, actor: str, reason: str) -> tuple[int, Version | None]:
    """Bring back version `to`, or the one before the present one; return its number, and the new version unless nothing changed."""
    with history.locked():
        current = history.current(actor)
        number = history.before(current) if to is None else to
        text = history.text(number)
        if text == history.file.read_text():
            return number, None
        _checked(text, history.file)
        return number, history.change(text, action="rolled back", actor=actor, reason=reason, restores=number)


def objections(found: Comparison | None, live: Settings, candidate: Settings) -> list[str]:
    """Return why a comparison does not support a promotion; nothing when it does."""
    if found is None:
        return ["there is no --comparison"]
    against = [f"{check.name} is {check.got}, expected {check.wanted}" for check in found.failed]
    for name, side, settings in (("live", found.live, live), ("candidate", found.shadow, candidate)):
        if side.settings_hash != decision_settings_hash(settings):
            against.append(f"the comparison was made with other settings than those now in the {name} file")
    age_ms = SystemClock().now_ms() - found.made_ms
    if age_ms > _MAX_AGE_MS:
        against.append(f"the comparison is {age_ms / _DAY_MS:.0f} days old; at most {_MAX_AGE_MS // _DAY_MS} are allowed")
    return against


def load_in_mode(file: Path, wanted: RunMode, option: str) -> Settings:
    """Return the settings in `file`; raise SettingsError, naming `option`, when their run mode is another one."""
    settings = load(file)
    if settings.run_mode is not wanted:
        raise SettingsError(f"{option} {file}: run_mode is {settings.run_mode.value!r}, expected {wanted.value!r}")
    return settings


def _refuse_variables() -> None:
    """Raise SettingsError when environment variables override what the files say."""
    prefixes = tuple(f"AQUILINE_{section.upper()}__" for section in SECTIONS)
    names = sorted(name for name in os.environ if name.startswith((*prefixes, "AQUILINE_RUN_MODE")) and name != _SECRET)
    if names:
        raise SettingsError(f"variables {', '.join(names)} override settings of both files; unset them")


def _refuse_simulator(candidate: Settings, found: Comparison | None, note: Callable[[str], None]) -> None:
    """Raise SettingsError when the candidate's engine is the simulator, by its own account or in the comparison."""
    in_comparison = found is not None and "simulator" in found.shadow.sources
    if asyncio.run(_is_simulator(candidate, note)) or in_comparison:
        raise SettingsError("the candidate was answered by the simulator, which live refuses; set engine.urls to a real engine")


async def _is_simulator(candidate: Settings, note: Callable[[str], None]) -> bool:
    try:
        return (await engine_info(candidate.engine, SystemClock())).source == "simulator"
    except EngineError as error:
        note(f"the candidate's engine does not answer from here ({error.detail}); each worker checks it at its start")
        return False


def _read(file: Path) -> Comparison:
    try:
        return Comparison.model_validate_json(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"--comparison {file}: {error.strerror}") from error
    except ValidationError as error:
        raise SettingsError(
            f"--comparison {file} is not what `aquiline shadow compare --out` writes: {error.errors()[0]['msg']}"
        ) from error


def _untouched(settings: Settings) -> dict[str, Any]:
    """Return the settings that a promotion must not change."""
    return {name: section for name, section in settings.model_dump().items() if name not in SECTIONS} | deployment_settings(settings)


def _text(live: Path, strategy: str | None, wanted: list[Change]) -> str:
    """Return the live file's text with these changes and the strategy in that folder."""
    text, spelled_out = with_strategy(live.read_text(), strategy, wanted)
    return applied(text, spelled_out)


def _checked(text: str, live: Path) -> Settings:
    """Return the settings in `text`; raise SettingsError when no worker would start with them."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml", dir=live.parent) as file:
        file.write(text)
        file.flush()
        try:
            settings = load(Path(file.name))
        except SettingsError as error:
            raise SettingsError(f"no worker of this release would start with these settings; {live} is unchanged: {error}") from error
    if settings.run_mode is not RunMode.LIVE:
        raise SettingsError(f"these settings have run_mode {settings.run_mode.value!r}; {live} is unchanged")
    return settings


def _listed(wanted: list[Change]) -> str:
    return "; ".join(map(str, wanted))
