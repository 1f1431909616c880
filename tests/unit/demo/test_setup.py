"""Options become settings: what is assigned wins, and what cannot be is refused in a sentence."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import pytest

from schemas import RunMode
from services.core.settings import SettingsError
from services.demo.setup import LOAD_ACT, MODEL_ACT, MODEL_FUSION, Act, Demo, set_up
from services.strategy.folder import FEATURES, TOML, new, read
from tests.unit.demo.build import DEFAULTS


def _demo(tmp_path: Path, **changes: object) -> Demo:
    return set_up(dataclasses.replace(DEFAULTS, **changes), tmp_path)  # type: ignore[arg-type]


def _act(tmp_path: Path, **changes: object) -> Act:
    (act,) = _demo(tmp_path, **changes).acts
    return act


def test_by_default_everything_is_embedded_and_one_stock_is_listed_on_the_way(tmp_path: Path) -> None:
    act = _act(tmp_path)
    assert act.engine is not None
    assert act.settings.run_mode is RunMode.DEMO
    assert (act.settings.bus.url, act.settings.redis.url) == ("memory://", "memory://")
    assert "FB.XNAS" not in {candle.symbol for candle in act.plan.history}
    assert "FB.XNAS" in {candle.symbol for _, candle in act.plan.phases[0].bars}


def test_every_run_has_a_group_and_a_log_of_its_own(tmp_path: Path) -> None:
    one, other = _act(tmp_path).settings, _act(tmp_path).settings
    assert one.fusion.group != other.fusion.group
    assert one.fusion.log_id != other.fusion.log_id
    assert one.market.group != other.market.group


def test_assigned_settings_win(tmp_path: Path) -> None:
    settings = _act(tmp_path, assignments=("fusion.permits=3", "fusion.trigger_on_vision=true", "redis.namespace=mine")).settings
    assert (settings.fusion.permits, settings.fusion.trigger_on_vision, settings.redis.namespace) == (3, True, "mine")


def test_the_outage_needs_an_engine_of_the_demos_own(tmp_path: Path) -> None:
    demo = _demo(tmp_path, engine="http://127.0.0.1:30000", model_bars=18)
    (act,) = demo.acts
    assert act.engine is None
    assert [one.phase.value for one in act.plan.phases] == ["paced", "burst"]
    assert "no outage" in demo.notes[0]


def test_without_charts_nothing_waits_for_them(tmp_path: Path) -> None:
    assert _act(tmp_path, vision="none").settings.fusion.vision_wait_ms == 0


def test_the_real_model_decides_on_the_bars_before_those_of_the_second_act(tmp_path: Path) -> None:
    demo = _demo(tmp_path, model_bars=18)
    model, load = demo.acts
    assert [act.name for act in demo.acts] == [MODEL_ACT, LOAD_ACT]
    closes = [candle.ts_close_ms for candle in (*model.plan.history, *(candle for _, candle in model.plan.phases[0].bars))]
    assert closes == sorted(closes)
    assert closes[-1] < load.plan.phases[0].bars[0][1].ts_close_ms
    assert len(model.plan.phases[0].bars) == 36
    assert model.settings.fusion.log_id == load.settings.fusion.log_id
    assert model.settings.fusion.group != load.settings.fusion.group


def test_settings_of_the_worker_that_are_set_belong_to_the_second_act_and_others_to_both(tmp_path: Path) -> None:
    model, load = _demo(tmp_path, model_bars=4, assignments=("fusion.window_bars=512", "redis.namespace=mine")).acts
    assert (load.settings.fusion.window_bars, load.settings.redis.namespace) == (512, "mine")
    assert (model.settings.fusion.window_bars, model.settings.redis.namespace) == (MODEL_FUSION["window_bars"], "mine")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"symbols": "AAPL,TSLA"}, r"expected some of AAPL, .*, got TSLA"),
        ({"symbols": ","}, "got none"),
        ({"intervals": "1w,1d"}, "the first must be 1d"),
        ({"assignments": ("permits=3",)}, "expected section.key=value"),
        ({"assignments": ("fusion.permit=3",)}, "no such setting"),
        ({"bars": 5_000}, "ask for fewer --bars"),
        ({"model_bars": 18, "start": dt.datetime(2000, 3, 5, tzinfo=dt.UTC)}, "fewer --model-bars"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        _demo(tmp_path, **changes)


def test_a_strategy_decides_in_both_acts_and_its_features_are_published(tmp_path: Path) -> None:
    folder = tmp_path / "momentum"
    new(folder, "momentum")
    text = (folder / TOML).read_text().replace("1h = 64", "1h = 24").replace("min_bars = 20", "min_bars = 12")
    (folder / TOML).write_text(text.replace("[triggers]", '[triggers]\ntrigger_intervals = ["15m"]'))
    demo = _demo(tmp_path, model_bars=18, strategy=str(folder))
    assert [act.name for act in demo.acts] == [MODEL_ACT, LOAD_ACT]
    for act in demo.acts:
        assert act.settings.fusion.strategy == read(folder)
        assert act.settings.market.features_file == folder / FEATURES
    fusion = demo.acts[-1].settings.fusion
    assert (fusion.intervals, fusion.trigger_interval_set, fusion.window_bars) == (["1d", "1w"], frozenset({"1d"}), 256)
    assert fusion.min_bars == 12
    assert "the strategy's" in demo.notes[0]
    with pytest.raises(SettingsError, match="nowhere is not a folder"):
        _demo(tmp_path, strategy="nowhere")
