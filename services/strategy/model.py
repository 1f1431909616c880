"""A strategy as one value: what a prompt shows, how it says so, and the values that it sets for the worker. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Final, Self

import orjson
from pydantic import Field, field_validator, model_validator

from schemas import Interval, interval_ms
from schemas.market import MAX_FEATURES
from services.strategy.catalogue import BOOK_FACTS, FEATURE_UNITS, BarColumn, Unit
from services.strategy.section import Positive, Section, WindowBars
from services.strategy.values import Answers, Deadlines, Guard, Levels, Notes, Permits, Triggers

MAX_INSTRUCTIONS: Final = 20_000
NAME_PATTERN: Final = r"^[a-z][a-z0-9-]{0,31}$"
_MAX_FACTS: Final = 40
_MAX_COLUMNS: Final = 12
_HASH_DIGITS: Final = 10
_OF_THE_BAR: Final = frozenset({"open", "high", "low", "close", "volume"})

FeatureName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Sentence = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[ -~]+$")]
"""Printable ASCII on one line, so that it keeps its place in the legend."""


class FeatureColumn(Section):
    """A feature that every bar's row shows."""

    feature: FeatureName
    label: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9][A-Za-z0-9 %/()._-]*$")]
    """What the legend calls the column."""
    unit: Unit
    digits: Annotated[int, Field(ge=0, le=6)] = 0
    """After the point. Prices and distances have at least those of the tick."""
    meaning: Sentence | None = None
    """What the legend says of it."""


class Fact(Section):
    """Numbers of the last closed bar that the tail shows by name, explained by one entry of the legend."""

    names: Annotated[list[FeatureName], Field(min_length=1, max_length=8)]
    unit: Unit
    digits: Annotated[int, Field(ge=0, le=6)] | None = None
    """After the point; those of the tick for prices and distances, 1 for returns and 2 for numbers where not given."""
    meaning: Sentence | None = None
    """What the legend says of them, after their names: all but `close` need it."""

    @model_validator(mode="after")
    def _explained(self) -> Self:
        if self.meaning is None and self.names != ["close"]:
            raise ValueError(f"{', '.join(self.names)} has no meaning; say in a few words what it is, for the legend")
        return self


DEFAULT_INPUTS: Final = ("positions", "notes")
HookName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


class HookNames(Section):
    """The hooks that decide with the strategy, by the names under which installed packages register them."""

    facts: list[HookName] = Field(default_factory=list)
    triggers: list[HookName] = Field(default_factory=list)
    guards: list[HookName] = Field(default_factory=list)


class Strategy(Section):
    """A strategy. Equal contents are equal, wherever they were read from."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    version: Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[A-Za-z0-9._-]+$")]
    intervals: Annotated[dict[Interval, WindowBars], Field(min_length=1, max_length=6)]
    """The intervals that a prompt shows, fastest first, and how many closed bars of each; of the first at the start of an epoch."""
    epoch_slots: Positive = 64
    """Slots of the fastest interval from one epoch to the next."""
    columns: Annotated[list[BarColumn | FeatureColumn], Field(min_length=1, max_length=_MAX_COLUMNS)]
    """What a bar's row shows after its time."""
    facts: Annotated[list[Fact], Field(max_length=_MAX_FACTS)] = Field(default_factory=list)
    """What the tail shows, in this order."""
    triggers: Triggers = Triggers()
    answers: Answers = Answers()
    levels: Levels = Levels()
    deadlines: Deadlines = Deadlines()
    permits: Permits = Permits()
    guard: Guard = Guard()
    notes: Notes = Notes()
    hooks: HookNames = HookNames()
    inputs: list[FeatureName] = Field(default_factory=lambda: list(DEFAULT_INPUTS), max_length=16)
    """The inputs read as tables that the tail shows, in this order, by the names under which packages register them."""
    instructions: str
    """The task in the user's words, at most MAX_INSTRUCTIONS characters. Legend and answer contract follow it."""

    @property
    def feature_columns(self) -> tuple[str, ...]:
        """Return the features that bars are kept with, since their rows show them."""
        names = (column.feature if isinstance(column, FeatureColumn) else column for column in self.columns)
        return tuple(name for name in names if name not in _OF_THE_BAR)

    @property
    def shown_features(self) -> tuple[str, ...]:
        """Return the features that prompts show."""
        return tuple(dict.fromkeys([*(name for name in self.fact_of if name not in BOOK_FACTS), *self.feature_columns]))

    @cached_property
    def units(self) -> dict[str, Unit]:
        """Return the unit of every feature that is known by name."""
        own = {column.feature: column.unit for column in self.columns if isinstance(column, FeatureColumn)}
        return FEATURE_UNITS | own | {name: fact.unit for fact in self.facts for name in fact.names if name not in BOOK_FACTS}

    @cached_property
    def fact_of(self) -> dict[str, Fact]:
        """Return each fact by name, in the order in which they are shown."""
        return {name: fact for fact in self.facts for name in fact.names}

    @cached_property
    def hash(self) -> str:
        """Return a hash of everything that the strategy says."""
        values = self.model_dump(mode="json")
        if values["inputs"] == list(DEFAULT_INPUTS):
            del values["inputs"]  # strategies from before there was a choice keep their version
        content = orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
        # The order of intervals, columns and facts is part of what is shown; only the keys of tables have none.
        ordered = orjson.dumps([list(self.intervals.items())])
        return hashlib.sha256(content + ordered).hexdigest()[:_HASH_DIGITS]

    def worker_values(self) -> dict[str, Any]:
        """Return what the strategy sets of the worker's settings, by their names; what it leaves out keeps its default."""
        first, *slower = self.intervals
        values: dict[str, Any] = {"intervals": list(self.intervals), "window_bars": self.intervals[first], "epoch_slots": self.epoch_slots}
        windows = {interval: self.intervals[interval] for interval in slower}
        if len(set(windows.values())) == 1:
            values["slow_window_bars"] = next(iter(windows.values()))
        elif windows:
            values["slow_windows"] = windows
        for name in TABLES:
            values |= getattr(self, name).model_dump(exclude_unset=True)
        return values

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a strategy with these changes, checked; what was computed of this one is not copied."""
        del deep
        return type(self).model_validate({**self.model_dump(), **(update or {})})

    @field_validator("instructions")
    @classmethod
    def _plain_text(cls, text: str) -> str:
        odd = sorted({character for character in text if not character.isprintable() and character not in "\n\t"})
        if odd:
            raise ValueError(f"the text holds the control characters {', '.join(map(repr, odd))}; remove them")
        if not text.strip():
            raise ValueError("the text is empty; say what the model is to decide")
        if len(text) > MAX_INSTRUCTIONS:
            raise ValueError(f"the text has {len(text):,} characters; at most {MAX_INSTRUCTIONS:,} are allowed, as every prompt holds them")
        return text.strip() + "\n"

    @field_validator("columns")
    @classmethod
    def _distinct_columns(cls, columns: list[BarColumn | FeatureColumn]) -> list[BarColumn | FeatureColumn]:
        names = [column.feature if isinstance(column, FeatureColumn) else column for column in columns]
        _refuse_twice(names, "columns")
        for column in columns:
            if isinstance(column, FeatureColumn):
                if column.feature in _OF_THE_BAR:
                    raise ValueError(f"{column.feature} is no feature; write columns = [..., {column.feature!r}]")
                _refuse_other_unit(column.feature, column.unit)
        return columns

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        lengths = [interval_ms(interval) for interval in self.intervals]
        if sorted(set(lengths)) != lengths:
            raise ValueError(f"intervals {list(self.intervals)} must be distinct and go from the fastest to the slowest")
        _refuse_twice([name for fact in self.facts for name in fact.names], "facts")
        _refuse_twice(self.inputs, "inputs")
        if len(self.shown_features) > MAX_FEATURES:
            raise ValueError(f"{len(self.shown_features)} features are shown; a record holds at most {MAX_FEATURES}")
        columns = {column.feature: column.unit for column in self.columns if isinstance(column, FeatureColumn)}
        for fact in self.facts:
            for name in fact.names:
                _refuse_other_unit(name, fact.unit)
                if columns.get(name, fact.unit) != fact.unit:
                    raise ValueError(f"{name} has the unit {columns[name]!r} as a column and {fact.unit!r} as a fact; give it one unit")
        return self


TABLES: Final = ("triggers", "answers", "levels", "deadlines", "permits", "guard", "notes")
"""The tables of `strategy.toml` whose keys are settings of the worker."""

STRATEGY_SETTINGS: Final = dict.fromkeys(("intervals", "window_bars", "slow_window_bars", "slow_windows"), "[intervals]") | {
    name: f"[{table}]"
    for table, group in (("triggers", Triggers), ("answers", Answers), ("levels", Levels), ("guard", Guard), ("notes", Notes))
    for name in group.model_fields
}
"""Settings of the worker that only a strategy sets, once one is named, by name with their table in `strategy.toml`."""


def _refuse_twice(names: list[str], where: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{where} names {', '.join(twice)} more than once; name each once")


def _refuse_other_unit(name: str, unit: Unit) -> None:
    known = (FEATURE_UNITS | BOOK_FACTS).get(name, unit)
    if known != unit:
        raise ValueError(f"{name} is a {known}, and unit is {unit!r}: write unit = {known!r}")
