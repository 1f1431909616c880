"""The result of a comparison, as it is shown, stored, and read by `aquiline promote`."""

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
    """One side within the compared span."""

    settings_hash: str
    """Of the settings in its file that shape decisions; `aquiline promote` compares it."""
    config_version: str
    """The newest configuration version; only its audit records count."""
    of_its_file: bool | None
    """Whether its settings file leads to this configuration version; None where that cannot be computed here."""
    other_versions: int
    """Count of audit records of other configuration versions, which are ignored."""
    models: list[str]
    sources: list[str]
    prompt_versions: list[str]
    triggers: int
    outcomes: dict[str, int]
    reasons: dict[str, int]
    """The most frequent reasons of outcomes other than `published`."""
    latency_ms: dict[str, Spread]
    """Of published signals, by stage; `record_to_decision` sums the stages up to the decision."""
    prefix_hits: float | None
    """Share of prompt tokens that were in the engine's cache."""
    accept_length: float | None
    """Mean accepted tokens a verification step, over the calls that report it."""

    def share(self, *outcomes: str) -> float:
        """Return the share of triggers with one of these outcomes."""
        return sum(self.outcomes.get(one, 0) for one in outcomes) / self.triggers if self.triggers else 0.0


class Returns(_Part):
    """Returns on the same records, after costs; `difference` is the shadow's less live's."""

    matured: int
    """Count of decided pairs in which a side wanted a position and whose horizon is over."""
    unscored: int
    """Those among them that lack an outcome."""
    pairs: int
    """Those among them with a return on both sides, 0 where no position was opened."""
    live_mean: float = 0.0
    shadow_mean: float = 0.0
    difference: float = 0.0
    low: float | None = None
    high: float | None = None
    """95 % interval of the difference; None with too few pairs."""


class Check(_Part):
    """One criterion: its threshold, the value found, and whether it is met."""

    name: str
    wanted: str
    got: str
    passed: bool


class Comparison(_Part):
    """The whole comparison with its verdict."""

    version: Literal[2] = 2
    """1 asked nothing of returns that were not scored."""
    made_ms: int
    from_ms: int
    until_ms: int
    """Append times of the triggering records: the span in which both sides had triggers."""
    live: Side
    shadow: Side
    coverage: float
    """Share of live's triggers that the shadow had as well."""
    pairs: int
    """Count of decisions of both sides on the same market record, symbol, interval and mode."""
    decided: int
    """Count of pairs in which both sides published a signal."""
    same_vision: float | None
    """Share of the pairs that also used the same vision record."""
    actions: dict[str, dict[str, int]]
    """Counts of pairs by live's label and the shadow's: an action, or an outcome other than `published`."""
    agreement: float | None
    """Share of the decided pairs with equal actions."""
    returns: Returns | None
    """None where a side that wanted positions has no outcome."""
    checks: list[Check] = Field(min_length=1)

    @property
    def passed(self) -> bool:
        """Return whether every criterion is met."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> list[Check]:
        """Return the criteria that are not met."""
        return [check for check in self.checks if not check.passed]
