"""Mode flash: an action from four log-probabilities, and a signal that carries them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Action, Outcome
from services.core.fusion_settings import FusionSettings
from services.core.settings import SettingsError
from services.fusion.decide.flash import flash_answer
from services.fusion.prompt.labels import Labels
from tests.unit.fusion.build import bar, tokenizer
from tests.unit.fusion.desk import Desk, ScriptedEngine

LABELS = Labels({"buy": "buy", "sell": "sell", "exit": "exit", "hold": "hold"}, np.arange(4, dtype=np.int32))
LIKELY_BUY = [float(np.log(share)) for share in (0.6, 0.2, 0.1, 0.1)]

LOGPROBS = st.lists(st.floats(-60, 0), min_size=4, max_size=4)


@given(logprobs=LOGPROBS, temperature=st.floats(0.05, 20), least=st.floats(0, 1))
def test_the_likeliest_action_is_chosen_or_none_when_it_does_not_lead_far_enough(
    logprobs: list[float], temperature: float, least: float
) -> None:
    settings = FusionSettings(flash_temperature=temperature, flash_min_margin=least)
    flash = flash_answer(np.array(logprobs), LABELS, settings)
    shares = sorted(flash.probabilities.values(), reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert flash.margin == pytest.approx(shares[0] - shares[1], abs=1e-9)
    assert (flash.answer.action == "abstain") == (flash.margin < least)
    if flash.answer.action != "abstain":
        assert flash.probabilities[flash.answer.action] == shares[0]
    assert orjson.loads(flash.text()) == {
        "action": flash.answer.action,
        "probabilities": dict(flash.probabilities),
        "margin": flash.margin,
    }


@given(logprobs=LOGPROBS, shift=st.floats(-30, 0))
def test_what_the_model_would_have_said_instead_of_a_label_changes_nothing(logprobs: list[float], shift: float) -> None:
    settings = FusionSettings()
    one, other = (flash_answer(np.array(values), LABELS, settings) for values in (logprobs, [value + shift for value in logprobs]))
    assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=2e-6)


@given(logprobs=LOGPROBS)
def test_a_higher_temperature_never_widens_the_lead(logprobs: list[float]) -> None:
    margins = [flash_answer(np.array(logprobs), LABELS, FusionSettings(flash_temperature=t)).margin for t in (0.5, 1.0, 2.0, 4.0)]
    assert all(later <= earlier + 2e-6 for earlier, later in pairwise(margins))


def test_prices_come_from_the_settings_on_the_side_of_the_action() -> None:
    settings = FusionSettings(flash_entry_tenths_atr=3, flash_stop_tenths_atr=12, flash_target_tenths_atr=30, flash_horizon_bars=7)
    buy = flash_answer(np.array([0.0, -5, -5, -5]), LABELS, settings).answer
    sell = flash_answer(np.array([-5.0, 0, -5, -5]), LABELS, settings).answer
    assert buy.model_dump(include={"entry", "stop", "target", "horizon"}) == {"entry": 3, "stop": -12, "target": 30, "horizon": 7}
    assert sell.model_dump(include={"entry", "stop", "target", "horizon"}) == {"entry": -3, "stop": 12, "target": -30, "horizon": 7}


def test_a_target_within_the_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="flash_target_tenths_atr"):
        FusionSettings(flash_entry_tenths_atr=30, flash_target_tenths_atr=30)


async def opened(engine: ScriptedEngine, **fusion: object) -> Desk:
    desk = await Desk.open(engine, None, start_from="latest", mode="flash", **fusion)
    await desk.history()
    return desk


async def test_a_flash_signal_carries_the_probabilities_and_its_conviction_is_one_of_them() -> None:
    engine = ScriptedEngine()
    engine.logprobs = LIKELY_BUY
    desk = await opened(engine)
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        (audit,) = await desk.concluded(1)
    (signal,) = await desk.signals()
    assert (signal.mode, signal.action, signal.horizon_bars) == ("flash", Action.BUY, 5)
    assert signal.probabilities == {"buy": 0.6, "sell": 0.2, "exit": 0.1, "hold": 0.1}
    assert signal.conviction == 0.6
    assert (signal.entry, signal.stop, signal.target) == ("101.20", "99.50", "103.50")
    assert (audit.outcome, audit.mode, audit.output_tokens) == (Outcome.PUBLISHED, "flash", 1)
    assert orjson.loads(audit.answer or "")["margin"] == pytest.approx(0.4)
    request = engine.requests[0]
    assert "buy, sell, exit or hold?\n" in tokenizer().decode(request.input_ids)


async def test_a_lead_that_is_too_small_abstains_and_says_by_how_much() -> None:
    engine = ScriptedEngine()
    engine.logprobs = [-1.0, -1.05, -3.0, -3.0]
    desk = await opened(engine)
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        await desk.concluded(1)
    (signal,) = await desk.signals()
    assert (signal.action, signal.conviction) == (Action.ABSTAIN, None)
    assert "buy leads sell by 0.0" in (signal.abstain_reason or "")


async def test_an_engine_that_fails_in_flash_is_a_failure_and_not_a_view() -> None:
    desk = await opened(ScriptedEngine())
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        (audit,) = await desk.concluded(1)
    assert (audit.outcome, audit.reason) == (Outcome.FAILED, "engine_refused")
    assert await desk.signals() == []


async def test_an_engine_without_log_probabilities_is_refused_at_the_start() -> None:
    engine = ScriptedEngine()
    engine.can_score = False
    desk = await opened(engine)
    with pytest.raises(SettingsError, match="needs the log-probabilities of labels, which scripted does not give"):
        async with desk.running():
            pass
