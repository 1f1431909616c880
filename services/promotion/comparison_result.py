"""A comparison as it is shown, stored and read again by `aquiline promote`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Part):
    """Percentiles of milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float


class Side(_Part):
    """What one side did within the span that is compared."""

    settings_hash: str
    """Of the settings in its file that shape decisions; `aquiline promote` compares it."""
    config_version: str
    """Of the audit records that count here: the newest one found."""
    of_its_file: bool | None
    """Whether its settings file makes this configuration version; None where that could not be worked out here."""
    other_versions: int
    """Audit records of other configuration versions, which were left out."""
    models: list[str]
    sources: list[str]
    prompt_versions: list[str]
    triggers: int
    outcomes: dict[str, int]
    reasons: dict[str, int]
    """The most frequent ones behind outcomes other than `published`."""
    latency_ms: dict[str, Spread]
    """By stage, and `record_to_decision` for all of them up to the decision; of published signals."""
    prefix_hits: float | None
    """Share of prompt tokens that the engine already held."""
    accept_length: float | None
    """Mean tokens a verification step, of the calls that said so."""

    def share(self, *outcomes: str) -> float:
        """Return the share of triggers that ended so."""
        return sum(self.outcomes.get(one, 0) for one in outcomes) / self.triggers if self.triggers else 0.0


class Returns(_Part):
    """Paired differences of what both made of the same moments: the shadow's return less the live one's, after costs."""

    pairs: int
    live_mean: float
    shadow_mean: float
    difference: float
    low: float | None
    high: float | None
    """95 % interval of the difference; None where there is too little to give one."""


class Check(_Part):
    """One criterion."""

    name: str
    wanted: str
    got: str
    passed: bool


class Comparison(_Part):
    """Everything that was compared, and the verdict."""

    version: Literal[1] = 1
    made_ms: int
    from_ms: int
    until_ms: int
    """Append times of the triggering records: the span in which both sides decided."""
    live: Side
    shadow: Side
    coverage: float
    """Share of live's triggers that the shadow had as well."""
    pairs: int
    """Decisions of both on the same market record of a symbol, interval and mode."""
    decided: int
    """Pairs of which both sides published a signal."""
    same_vision: float | None
    """Share of the pairs that rest on the same vision record too."""
    actions: dict[str, dict[str, int]]
    """Pairs by what live did (rows) and what the shadow did: an action, or an outcome other than `published`."""
    agreement: float | None
    """Share of the decided pairs with one action."""
    returns: Returns | None
    """None where neither side's signals were scored."""
    checks: list[Check] = Field(min_length=1)

    @property
    def passed(self) -> bool:
        """Return whether every criterion is met."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> list[Check]:
        """Return the criteria that are not met."""
        return [check for check in self.checks if not check.passed]
