"""Options become settings: what is assigned wins, and what cannot be is refused in a sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from schemas import RunMode
from services.core.settings import SettingsError
from services.demo.options import Vision
from services.demo.setup import Demo, set_up
from tests.unit.demo.build import DEFAULTS


def _demo(tmp_path: Path, **changes: object) -> Demo:
    return set_up(dataclasses.replace(DEFAULTS, **changes), tmp_path)  # type: ignore[arg-type]


def test_by_default_everything_is_embedded_and_one_stock_is_listed_on_the_way(tmp_path: Path) -> None:
    demo = _demo(tmp_path)
    assert demo.simulator is not None
    assert demo.settings.run_mode is RunMode.DEMO
    assert (demo.settings.bus.url, demo.settings.redis.url) == ("memory://", "memory://")
    assert "FB.XNAS" not in {candle.symbol for candle in demo.plan.history}
    assert "FB.XNAS" in {candle.symbol for _, candle in demo.plan.phases[0].bars}


def test_every_run_has_a_group_and_a_log_of_its_own(tmp_path: Path) -> None:
    one, other = _demo(tmp_path).settings, _demo(tmp_path).settings
    assert one.fusion.group != other.fusion.group
    assert one.fusion.log_id != other.fusion.log_id
    assert one.market.group != other.market.group


def test_assigned_settings_win(tmp_path: Path) -> None:
    settings = _demo(tmp_path, assignments=("fusion.permits=3", "fusion.trigger_on_vision=true", "redis.namespace=mine")).settings
    assert (settings.fusion.permits, settings.fusion.trigger_on_vision, settings.redis.namespace) == (3, True, "mine")


def test_the_outage_needs_an_engine_of_the_demos_own(tmp_path: Path) -> None:
    demo = _demo(tmp_path, engine="http://127.0.0.1:30000")
    assert demo.simulator is None
    assert [one.phase.value for one in demo.plan.phases] == ["paced", "burst"]
    assert "no outage" in demo.notes[0]


def test_without_charts_nothing_waits_for_them(tmp_path: Path) -> None:
    assert _demo(tmp_path, vision=Vision.NONE).settings.fusion.vision_wait_ms == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"symbols": "AAPL,TSLA"}, r"expected some of AAPL, .*, got TSLA"),
        ({"symbols": ","}, "got none"),
        ({"intervals": "1w,1d"}, "the first must be 1d"),
        ({"assignments": ("permits=3",)}, "expected section.key=value"),
        ({"assignments": ("fusion.permit=3",)}, "no such setting"),
        ({"bars": 5_000}, "ask for fewer --bars"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        _demo(tmp_path, **changes)
