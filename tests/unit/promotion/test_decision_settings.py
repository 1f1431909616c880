"""Which settings shape decisions."""

from __future__ import annotations

from schemas import RunMode
from services.core.fusion_settings import FusionSettings
from services.core.settings import BusSettings, Settings
from services.promotion.decision_settings import (
    DEPLOYMENT_SETTINGS,
    SECTIONS,
    decision_settings,
    decision_settings_hash,
    deployment_settings,
)


def test_every_setting_of_worker_and_engine_either_shapes_decisions_or_belongs_to_the_place() -> None:
    settings = Settings()
    keys = {f"{section}.{name}" for section in SECTIONS for name in type(getattr(settings, section)).model_fields}
    assert keys >= DEPLOYMENT_SETTINGS
    assert decision_settings(settings).keys() | deployment_settings(settings).keys() == keys
    assert not decision_settings(settings).keys() & deployment_settings(settings).keys()


def test_the_hash_follows_what_shapes_decisions_and_nothing_else() -> None:
    base = decision_settings_hash(Settings())
    assert (
        decision_settings_hash(Settings(run_mode=RunMode.LIVE, bus=BusSettings(url="memory://"), fusion=FusionSettings(group="x"))) == base
    )
    assert decision_settings_hash(Settings(fusion=FusionSettings(window_bars=300))) != base
