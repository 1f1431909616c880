"""Findings of the doctor on Redis, engines, instruments, halts, offsets and clocks."""

from __future__ import annotations

from typing import Any

import pytest

from schemas import RunMode, SymbolChange
from services.core.fusion_settings import FusionSettings
from services.core.settings import EngineSettings, RedisSettings, Settings
from services.doctor.engine_findings import PromptFacts, engine_findings
from services.doctor.longest_prompt import longest_prompt
from services.doctor.redis_findings import RedisFacts, redis_findings
from services.doctor.worker_findings import (
    halt_findings,
    instrument_findings,
    offset_findings,
    skew_finding,
    symbol_change_findings,
)
from services.fusion.service import load_tokenizer
from services.inference.engine import EngineInfo

SHADOW = Settings(run_mode=RunMode.SHADOW)
WELL = RedisFacts("7.2.4", 2 * 1024**3, "allkeys-lru", 0.4)
PROMPT = PromptFacts(16_000, 15_700)
SIMULATOR = EngineInfo("sglang@here:1", "simulator", "sim", 32_768, 500_000)


def engine(**changes: Any) -> EngineInfo:
    return EngineInfo(
        **{**{name: getattr(SIMULATOR, name) for name in ("name", "source", "model", "context_tokens", "kv_capacity_tokens")}, **changes}
    )


def test_a_redis_with_a_limit_that_evicts_is_well() -> None:
    assert [one.level for one in redis_findings(SHADOW, WELL)] == ["ok"]


@pytest.mark.parametrize(
    ("facts", "level", "said"),
    [
        (RedisFacts("7.2.4", 0, "allkeys-lru", 0.4), "fail", "maxmemory is not set"),
        (RedisFacts("7.2.4", 10**9, "noeviction", 0.4), "fail", "noeviction"),
        (RedisFacts("3.2.12", 10**9, "allkeys-lru", 0.4), "fail", "too old"),
        (RedisFacts("7.2.4", 10**9, "allkeys-lru", 80.0), "warn", "takes 80 ms"),
    ],
)
def test_each_trouble_of_a_redis_is_named_with_its_fix(facts: RedisFacts, level: str, said: str) -> None:
    (one,) = redis_findings(SHADOW, facts)
    assert (one.level, said in one.sentence, bool(one.fix)) == (level, True, True)


@pytest.mark.parametrize(
    ("url", "warns"), [("redis://cache:6379/0", True), ("rediss://cache:6379/0", False), ("redis://localhost:6379/0", False)]
)
def test_a_password_in_the_clear_is_told_of(url: str, warns: bool) -> None:  # noqa: FBT001 - a case
    settings = Settings(redis=RedisSettings.model_validate({"url": url, "password": "s3cret"}))
    found = redis_findings(settings, WELL)
    assert any("in plaintext" in one.sentence for one in found) is warns
    assert "s3cret" not in str(found)


def test_a_simulator_is_well_in_shadow_and_refused_in_live() -> None:
    assert [one.level for one in engine_findings(SHADOW, SIMULATOR, PROMPT, 5)] == ["ok"]
    (one,) = engine_findings(Settings(run_mode=RunMode.LIVE), SIMULATOR, PROMPT, 5)
    assert (one.level, "simulator" in one.sentence) == ("fail", True)


def test_a_real_model_wants_its_own_tokenizer() -> None:
    (one,) = engine_findings(SHADOW, engine(source="llm"), PROMPT, 5)
    assert (one.level, "engine.tokenizer_file" in one.fix) == ("fail", True)
    assert engine_findings(Settings(engine=EngineSettings(kind="openai")), engine(source="llm"), None, 5)[0].level == "ok"


def test_a_context_that_is_too_short_for_the_longest_prompt_is_named() -> None:
    (one,) = engine_findings(SHADOW, engine(context_tokens=16_100), PROMPT, 5)
    assert (one.level, "a context of at least 16160" in one.fix) == ("fail", True)
    deep = Settings(fusion=FusionSettings(deep_every_bars=15))
    assert str(16_000 + 160 + 2_048) in engine_findings(deep, engine(context_tokens=16_500), PROMPT, 5)[0].fix


def test_prefixes_that_do_not_fit_are_named_with_the_window_that_would() -> None:
    (one,) = engine_findings(SHADOW, SIMULATOR, PROMPT, 100)
    assert one.level == "warn"
    assert "set fusion.window_bars to 40 or less" in one.fix
    shared = Settings(engine=EngineSettings(urls=[f"http://engine-{n}:30000" for n in range(8)]))
    assert engine_findings(shared, SIMULATOR, PROMPT, 100)[0].level == "ok"


def test_halts_are_told_with_their_reason() -> None:
    assert halt_findings(None, [])[0].level == "ok"
    assert "earnings" in halt_findings("earnings", ["A.X"])[0].sentence
    assert "A.X, B.X" in halt_findings(None, ["A.X", "B.X"])[0].sentence
    assert "and 2 more" in halt_findings(None, [f"S{n}.X" for n in range(12)])[0].sentence


def test_a_symbol_that_is_replaced_is_named_before_it_is_and_while_the_new_one_has_no_instrument() -> None:
    change = SymbolChange(
        schema_version=1, run_mode=RunMode.LIVE, symbol="FB.XNAS", event="symbol_change", new_symbol="META.XNAS", effective_ms=2_000
    )
    (early,) = symbol_change_findings([change], ["FB.XNAS", "META.XNAS"], now_ms=1_000)
    assert (early.level, "1970-01-01 00:00 UTC" in early.sentence) == ("warn", True)
    assert "publish the candles of FB.XNAS under META.XNAS" in early.fix
    assert symbol_change_findings([change], ["FB.XNAS", "META.XNAS"], now_ms=2_000) == []
    for now_ms in (1_000, 2_000):
        (unknown,) = symbol_change_findings([change], ["FB.XNAS"], now_ms)
        assert (unknown.level, "dead-lettered" in unknown.sentence) == ("fail", True)


def test_instruments_that_are_missing_unusable_or_too_many_are_named() -> None:
    assert instrument_findings(SHADOW, ["A.X"], {})[0].level == "ok"
    assert "unknown_instrument" in instrument_findings(SHADOW, [], {})[0].sentence
    assert "B.X" in instrument_findings(Settings(fusion=FusionSettings(symbols=["A.X", "B.X"])), ["A.X"], {})[0].sentence
    assert "its price_increment" in instrument_findings(SHADOW, ["A.X"], {"A.X": "its price_increment is 0"})[0].sentence
    assert "max_symbols is 1" in instrument_findings(Settings(fusion=FusionSettings(max_symbols=1)), ["A.X", "B.X"], {})[0].sentence


def test_offsets_outside_the_log_fail() -> None:
    found = [
        offset_findings("group g", lag, lost, beyond, committed=committed, start_from="latest")
        for lag, lost, beyond, committed in ((0, 0, 0, False), (7, 0, 0, True), (7, 3, 0, True), (0, 0, 4, True))
    ]
    assert [one.level for one in found] == ["ok", "ok", "fail", "fail"]
    assert "3 records were deleted" in found[2].sentence
    assert "fusion.log_id" in found[3].fix


@pytest.mark.parametrize(("skew_ms", "level"), [(0, "ok"), (2_000, "ok"), (-2_001, "fail"), (9_000, "fail")])
def test_clocks_may_differ_by_the_limit(skew_ms: int, level: str) -> None:
    assert skew_finding(skew_ms, 2_000, "by probe").level == level


@pytest.mark.parametrize("fusion", [FusionSettings(), FusionSettings(window_bars=65), FusionSettings(intervals=["5m"], deep_every_bars=3)])
async def test_the_longest_prompt_is_full(fusion: FusionSettings) -> None:
    settings = Settings(fusion=fusion)
    longest = await longest_prompt(settings, load_tokenizer(settings.engine))
    lines = fusion.window_bars + fusion.epoch_slots + (len(fusion.intervals) - 1) * fusion.slow_window_bars
    assert longest.prefix_tokens > 25 * lines
    assert longest.tokens > longest.prefix_tokens + 100
