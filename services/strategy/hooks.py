"""Hooks: functions of the user's own that packages register as entry points and a strategy names.

A hook is pure: what it returns follows from its arguments alone. One that raises, takes too long or returns what it must not is a
`HookError`, which never ends a worker: facts fail the decision, a guard blocks it, a trigger is not made.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.strategy.catalogue import BOOK_FACTS, FEATURE_UNITS
from services.strategy.folder import StrategyError
from services.strategy.model import HookNames, Strategy
from services.strategy.rivals import twice
from services.strategy.user_code import UserCodeError, run_user_code

GROUPS: Final = {"facts": "aquiline.facts", "triggers": "aquiline.triggers", "guards": "aquiline.guards"}
"""The entry point group of each kind of hook."""
WALL_LIMIT_MS: Final = 250
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_MAX_REASON: Final = 300
_MAX_REASONS: Final = 16

Result = TypeVar("Result")


class HookError(Exception):
    """A hook failed; the text names it and says what it did."""


class BarView(NamedTuple):
    """The closed bars of one interval, oldest first: arrays of shape (bars,), `ts_close_ms` int64, the others float64."""

    ts_close_ms: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BookView:
    """What a hook sees: a copy of one symbol's book at the moment of a bar's close."""

    symbol: str
    interval: str
    """The interval that triggers; its last closed bar is the moment of the view."""
    bars: Mapping[str, BarView]
    """By interval, as many bars as prompts may show."""
    features: Mapping[str, float]
    """Of the last closed bar of `interval`."""


class FactsHook(Protocol):
    """Returns facts by name; the strategy shows those that its `[[facts]]` name. One that is not defined is left out."""

    def __call__(self, view: BookView, /) -> Mapping[str, float]:
        """Return facts of the view."""
        ...


class TriggerHook(Protocol):
    """Decides on each closed bar whether the model is asked."""

    def __call__(self, view: BookView, /) -> str | None:
        """Return why, as a name of the form `breakout_up`, or None."""
        ...


class GuardHook(Protocol):
    """Decides whether an entry may be published. Exits are never held back."""

    def __call__(self, view: BookView, action: Literal["buy", "sell"], /) -> str | None:
        """Return why not, in a sentence, or None."""
        ...


class Hooks:
    """The hooks that one strategy names."""

    def __init__(
        self,
        facts: Mapping[str, FactsHook] | None = None,
        triggers: Mapping[str, TriggerHook] | None = None,
        guards: Mapping[str, GuardHook] | None = None,
    ) -> None:
        """Call these hooks, by name."""
        self._facts = facts or {}
        self._triggers = triggers or {}
        self._guards = guards or {}
        self._reasons: set[str] = set()
        self.decide = bool(self._facts or self._guards)
        """Whether a decision needs a view of the book."""
        self.trigger = bool(self._triggers)
        """Whether a closed bar does."""

    @classmethod
    def of(cls, strategy: Strategy) -> Hooks:
        """Return the hooks that a strategy names; raise StrategyError naming one that is not installed or cannot be imported."""
        names = strategy.hooks
        return cls(
            {name: _loaded("facts", name) for name in names.facts},
            {name: _loaded("triggers", name) for name in names.triggers},
            {name: _loaded("guards", name) for name in names.guards},
        )

    def facts(self, view: BookView) -> dict[str, float]:
        """Return the facts of all hooks; raise HookError."""
        facts: dict[str, float] = {}
        for name, hook in self._facts.items():
            for fact, value in _called(name, lambda hook=hook: dict(hook(view))).items():  # type: ignore[misc]
                if not isinstance(fact, str) or not _NAME.fullmatch(fact) or fact in FEATURE_UNITS or fact in BOOK_FACTS:
                    raise HookError(f"the hook {name} returned a fact named {fact!r}; expected a name like my_fact that is not taken")
                if fact in facts:
                    raise HookError(f"the hook {name} returned {fact}, which another hook returns too")
                if not isinstance(value, int | float | np.floating | np.integer) or not math.isfinite(value):
                    raise HookError(f"the hook {name} returned {fact} = {value!r}; expected a finite number, or no {fact}")
                facts[fact] = float(value)
        return facts

    def reason_to_ask(self, view: BookView) -> str | None:
        """Return the first trigger hook's reason; raise HookError."""
        for name, hook in self._triggers.items():
            reason = _called(name, lambda hook=hook: hook(view))  # type: ignore[misc]
            if reason is not None:
                if not isinstance(reason, str) or not _NAME.fullmatch(reason):
                    raise HookError(f"the hook {name} returned the reason {reason!r}; expected a name like breakout_up, or None")
                if len(self._reasons | {reason}) > _MAX_REASONS:
                    raise HookError(f"the hook {name} returned the reason {reason!r} after {_MAX_REASONS} others; metrics count by reason")
                self._reasons.add(reason)
                return reason
        return None

    def reason_to_block(self, view: BookView, action: Literal["buy", "sell"]) -> str | None:
        """Return the first guard hook's reason against `action`; raise HookError."""
        for name, hook in self._guards.items():
            reason = _called(name, lambda hook=hook: hook(view, action))  # type: ignore[misc]
            if reason is not None:
                if not isinstance(reason, str) or not reason.strip():
                    raise HookError(f"the hook {name} returned {reason!r}; expected a sentence, or None")
                return f"{name}: {' '.join(reason.split())[:_MAX_REASON]}"
        return None


def hook_versions(names: HookNames) -> list[str]:
    """Return each named hook with the package and version that it comes from: other code is another prompt version."""
    found = []
    for kind in GROUPS:
        for name in getattr(names, kind):
            entry = _entries(kind).get(name)
            package = "not installed" if entry is None or entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
            found.append(f"{kind}:{name} of {package}")
    return found


@cache
def _entries(kind: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUPS[kind])}


def _loaded(kind: str, name: str) -> Any:
    entry = _entries(kind).get(name)
    if entry is None:
        offered = ", ".join(sorted(_entries(kind))) or "none"
        raise StrategyError(
            f'hooks.{kind} names {name!r}, which no installed package registers under "{GROUPS[kind]}" (registered: {offered}); install '
            "the package that has it"
        )
    if rivals := twice(GROUPS[kind]).get(name):
        raise StrategyError(f"hooks.{kind}: {name!r} is registered by {rivals}; uninstall all but one, or give them other names")
    try:
        hook = entry.load()
    except (Exception, SystemExit) as error:
        raise StrategyError(f"hooks.{kind}: {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(hook):
        raise StrategyError(f"hooks.{kind}: {name!r} is {entry.value}, which is not a function")
    return hook


def _called(name: str, call: Callable[[], Result]) -> Result:
    return guarded(f"hook {name}", call)


def guarded(name: str, call: Callable[[], Result], wall_limit_ms: float = WALL_LIMIT_MS) -> Result:
    """Return what a user's code returns; raise HookError, which names it, when it raises or takes too long."""
    started = time.monotonic()
    try:
        made = run_user_code(call)
    except UserCodeError as error:
        raise HookError(f"the {name} {error}") from error
    took_ms = (time.monotonic() - started) * 1_000
    if took_ms > wall_limit_ms:
        raise HookError(f"the {name} took {took_ms:.0f} ms; at most {wall_limit_ms:.0f} are allowed")
    return made
