"""Each signal as one sentence with its prices, currency and validity; each other end with what it means; the banner."""

from __future__ import annotations

import pytest

from schemas import Action, Outcome
from services.demo.screen import ending_sentence, next_commands, opening, signal_sentence
from services.demo.setup import LOAD_ACT, MODEL_ACT
from services.inference.engine import EngineInfo, EngineSource
from tests.unit.pipeline.build import audit, signal


def test_an_entry_names_its_prices_their_currency_and_how_long_it_is_valid() -> None:
    record = audit(latency_ms={"queue": 12.0, "decision": 400.0}, prompt_tokens=1_000, cached_tokens=970)
    assert signal_sentence(signal(record.signal_id), record) == (
        "BUY AAPL.XNAS up to 271.61 USD, stop 271.12, target 272.20; valid 3 s, conviction 0.60, 12 bars, chart fresh, 412 ms, 97% cached"
    )


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (Action.SELL, "SELL AAPL.XNAS down to 271.61 USD"),
        (Action.EXIT, "EXIT AAPL.XNAS: close an open position, last 271.55 USD"),
        (Action.HOLD, "HOLD AAPL.XNAS: change nothing, last 271.55 USD"),
    ],
)
def test_every_action_has_its_sentence(action: Action, words: str) -> None:
    assert signal_sentence(signal(None, action=action), audit()).startswith(words)


def test_an_abstention_says_why_and_has_no_conviction() -> None:
    said = signal_sentence(signal(None, action=Action.ABSTAIN, abstain_reason="too thin", conviction=None), audit())
    assert said.startswith("ABSTAIN on AAPL.XNAS: too thin")
    assert "conviction" not in said


def test_a_stale_chart_says_its_age() -> None:
    assert "chart stale by 2 d" in signal_sentence(signal(None, vision="stale", vision_age_ms=2 * 86_400_000), audit())


def test_a_failure_is_said_not_to_be_a_hold() -> None:
    assert "never becomes a hold" in ending_sentence(audit(Outcome.FAILED, reason="engine_unreachable"))


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.PUBLISHED])
def test_every_other_end_names_its_outcome_and_reason(outcome: Outcome) -> None:
    assert ending_sentence(audit(outcome, reason="why_so")).startswith(f"{outcome.value} (why_so)")


def test_the_banner_says_simulator_unless_a_model_answers() -> None:
    sources: tuple[EngineSource, ...] = ("rules", "simulator", "llm")
    banners = {source: opening(EngineInfo("sglang@x", source, "m"), LOAD_ACT)[1] for source in sources}
    assert banners["simulator"].startswith("SIMULATOR / DEMO")
    assert banners["llm"].startswith("DEMO: the model behind sglang@x")
    assert all("advice" in text for text in banners.values())


def test_the_banner_of_the_real_model_says_that_it_has_no_edge() -> None:
    info = EngineInfo("llamacpp@x", "llm", "SmolLM2-135M-Instruct")
    what, banner = opening(info, MODEL_ACT)
    assert banner.startswith(
        "DEMO: SmolLM2-135M-Instruct answers, a small language model that learned to follow chart setups and has no edge"
    )
    assert what.startswith("a real model decides: SmolLM2-135M-Instruct")
    assert opening(info, LOAD_ACT)[0].startswith("load, burst, outage and recovery")


def test_the_next_commands_are_those_of_the_bus_that_was_used() -> None:
    assert len(next_commands("memory://")) == 3
    commands = [command for command, _ in next_commands("kafka://127.0.0.1:9092")]
    assert commands[0] == "AQUILINE_RUN_MODE=demo AQUILINE_BUS__URL=kafka://127.0.0.1:9092 .venv/bin/aquiline topics describe"
    assert len(commands) == 4
