"""Whether the features that a strategy shows are published: prompts leave out one that is not, and nothing fails. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from services.doctor.finding import Finding, ok, skipped, warn
from services.strategy.catalogue import FEATURE_UNITS
from services.strategy.model import Strategy

_CHECK: Final = "features"
_FIX: Final = (
    "set market.features_file in the settings of the market service, publish it from a producer of your own, or correct strategy.toml"
)


def feature_finding(strategy: Strategy, intervals: AbstractSet[str], published: Mapping[str, AbstractSet[str]]) -> Finding:
    """Return the finding on the features that `strategy` shows: `published` are those of the newest closed bars, by interval.

    `intervals` are those that trigger. Facts of hooks are not published: where the strategy names such hooks, only features of
    `services/market` and of columns are looked for.
    """
    seen = {interval: published[interval] for interval in sorted(intervals & published.keys())}
    if not seen:
        return skipped(_CHECK, f"the topic holds no closed bar of {', '.join(sorted(intervals))} yet")
    wanted = [
        name for name in strategy.shown_features if not strategy.hooks.facts or name in FEATURE_UNITS or name in strategy.feature_columns
    ]
    for interval, names in seen.items():
        if absent := [name for name in wanted if name not in names]:
            what = f"the strategy {strategy.name} shows {', '.join(absent)}, which the newest closed bars of {interval} do not hold"
            return warn(_CHECK, f"{what}: it stays unknown to the model", _FIX)
    return ok(_CHECK, f"the newest bars hold all {len(wanted)} that the strategy {strategy.name} shows")
