"""Features that a strategy shows and nobody publishes are found, before anybody wonders why the model ignores them."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.doctor.feature_findings import feature_finding
from services.strategy.catalogue import FEATURE_UNITS
from services.strategy.folder import new, read
from services.strategy.model import Strategy

OF_THE_SERVICE = frozenset(FEATURE_UNITS)


@pytest.fixture
def momentum(tmp_path: Path) -> Strategy:
    new(tmp_path / "momentum", "momentum")
    return read(tmp_path / "momentum")


def test_a_feature_of_ones_own_that_no_bar_holds_is_named_with_what_publishes_it(momentum: Strategy) -> None:
    found = feature_finding(momentum, {"1m"}, {"1m": OF_THE_SERVICE, "1h": OF_THE_SERVICE | {"mom_12"}})
    assert found.level == "warn"
    assert "shows mom_12, which the newest closed bars of 1m do not hold" in found.sentence
    assert "market.features_file" in found.fix


def test_bars_that_hold_every_feature_are_well_and_a_topic_without_bars_says_nothing(momentum: Strategy) -> None:
    assert feature_finding(momentum, {"1m"}, {"1m": OF_THE_SERVICE | {"mom_12"}}).level == "ok"
    assert feature_finding(momentum, {"1m"}, {}).level == "skipped"
    assert feature_finding(momentum, {"1m"}, {"1h": set()}).level == "skipped"


def test_facts_of_hooks_are_not_looked_for_on_the_topic(momentum: Strategy) -> None:
    hooked = momentum.model_copy(update={"hooks": {"facts": ["channel"]}})
    assert feature_finding(hooked, {"1m"}, {"1m": OF_THE_SERVICE}).level == "ok"
    assert feature_finding(hooked, {"1m"}, {"1m": OF_THE_SERVICE - {"atr"}}).level == "warn"
