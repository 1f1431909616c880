"""Options become settings: what is assigned wins, and what cannot be is refused in a sentence."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import pytest

from schemas import RunMode
from services.core.settings import SettingsError
from services.demo.course import Run
from services.demo.options import Options, Vision
from services.demo.prepare import prepare

PLAIN = Options(
    symbols="AAPL,FB,GOOG,IBM,MSFT",
    bars=80,
    pace=1.5,
    start=None,
    history_from=dt.date(2009, 1, 1),
    burst=True,
    outage=True,
    vision=Vision.RECORDED,
    intervals="1d,1w",
    window=256,
    epoch=64,
    permits=5,
    min_gap_bars=1,
    bus="memory://",
    redis="memory://",
    engine=None,
    time_scale=1.0,
    assignments=(),
    seed=0,
    verbose=False,
)


def _run(tmp_path: Path, **changes: object) -> Run:
    return prepare(dataclasses.replace(PLAIN, **changes), tmp_path)[0]  # type: ignore[arg-type]


def test_by_default_everything_is_embedded_and_one_stock_is_listed_on_the_way(tmp_path: Path) -> None:
    run = _run(tmp_path)
    assert run.simulator is not None
    assert run.settings.run_mode is RunMode.DEMO
    assert (run.settings.bus.url, run.settings.redis.url) == ("memory://", "memory://")
    assert "FB.XNAS" not in {candle.symbol for candle in run.script.history}
    assert "FB.XNAS" in {candle.symbol for _, candle in run.script.acts[0].bars}


def test_every_run_has_a_group_and_a_log_of_its_own(tmp_path: Path) -> None:
    one, other = _run(tmp_path).settings, _run(tmp_path).settings
    assert one.fusion.group != other.fusion.group
    assert one.fusion.log_id != other.fusion.log_id
    assert one.market.group != other.market.group


def test_assigned_settings_win(tmp_path: Path) -> None:
    settings = _run(tmp_path, assignments=("fusion.permits=3", "fusion.trigger_on_vision=true", "redis.namespace=mine")).settings
    assert (settings.fusion.permits, settings.fusion.trigger_on_vision, settings.redis.namespace) == (3, True, "mine")


def test_the_outage_needs_an_engine_of_the_demos_own(tmp_path: Path) -> None:
    run = _run(tmp_path, engine="http://127.0.0.1:30000")
    assert run.simulator is None
    assert [act.phase.value for act in run.script.acts] == ["paced", "burst"]
    assert "outage is left out" in run.notes[0]


def test_without_charts_nothing_waits_for_them(tmp_path: Path) -> None:
    assert _run(tmp_path, vision=Vision.NONE).settings.fusion.vision_wait_ms == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"symbols": "AAPL,TSLA"}, "TSLA is not among"),
        ({"symbols": ","}, "nothing is not among"),
        ({"intervals": "1w,1d"}, "the first must be 1d"),
        ({"assignments": ("permits=3",)}, "expected section.key=value"),
        ({"assignments": ("fusion.permit=3",)}, "no such setting"),
        ({"bars": 5_000}, "ask for fewer --bars"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        _run(tmp_path, **changes)
