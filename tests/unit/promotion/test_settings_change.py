"""A promotion's change of a settings file: what decides is the candidate's, and all else is left as it was."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import RunMode
from services.core.fusion_settings import FusionSettings
from services.core.settings import EngineSettings, Settings, load
from services.promotion.decision_settings import decision_settings, deployment_settings
from services.promotion.settings_change import applied, changes

LIVE = """# The desk's own.
run_mode = "live"

[bus]
url = "kafka://one:9092"  # three brokers

[fusion]
group = "desk"
window_bars = 256  # as measured in May
entry_validity_ms = {"1m" = 3000}
max_event_lag_ms = 5000
"""

CANDIDATES = st.builds(
    dict[str, Any],
    window_bars=st.integers(200, 400),
    min_gap_ms=st.integers(0, 5_000),
    temperature=st.floats(0, 2),
    grammar=st.booleans(),
    max_event_lag_ms=st.none() | st.integers(1, 9_000),
    entry_validity_ms=st.dictionaries(st.sampled_from(["1m", "15m"]), st.integers(2_000, 9_000)),
    trigger_intervals=st.lists(st.sampled_from(["1m", "15m"]), unique=True),
)


@settings(max_examples=40, deadline=None)
@given(CANDIDATES, st.sampled_from(["sglang", "openai", "rules"]), st.none() | st.just("/models/tokenizer.json"))
def test_live_then_decides_as_the_candidate_does_and_keeps_the_rest(
    tmp_path_factory: Any, fusion: dict[str, Any], kind: str, tokenizer: str | None
) -> None:
    file: Path = tmp_path_factory.mktemp("live") / "live.toml"
    file.write_text(LIVE)
    before = load(file)
    candidate = Settings(
        run_mode=RunMode.SHADOW,
        engine=EngineSettings.model_validate({"kind": kind, "urls": ["http://b:1", "http://c:1"], "tokenizer_file": tokenizer}),
        fusion=FusionSettings.model_validate({"group": "candidate", **fusion}),
    )
    wanted = changes(before, candidate)
    file.write_text(applied(LIVE, wanted))
    after = load(file)
    assert decision_settings(after) == decision_settings(candidate)
    assert changes(after, candidate) == []
    assert deployment_settings(after) == deployment_settings(before)
    assert (after.run_mode, after.bus, after.redis) == (RunMode.LIVE, before.bus, before.redis)
    assert file.read_text().startswith("# The desk's own.\n")
    assert "# three brokers" in file.read_text()


def test_a_setting_without_a_value_is_taken_out_and_a_section_that_is_not_there_is_made() -> None:
    before = Settings(run_mode=RunMode.LIVE, fusion=FusionSettings(max_event_lag_ms=5_000))
    candidate = Settings(engine=EngineSettings(model="other"))
    wanted = changes(before, candidate)
    assert [str(change) for change in wanted] == ["engine.model: nothing -> 'other'", "fusion.max_event_lag_ms: 5000 -> nothing"]
    assert tomllib.loads(applied("[fusion]\nmax_event_lag_ms = 5000\n", wanted)) == {"fusion": {}, "engine": {"model": "other"}}


def test_sections_written_in_pieces_and_with_dots_keep_what_they_hold() -> None:
    before, candidate = Settings(), Settings(fusion=FusionSettings(window_bars=300), engine=EngineSettings(model="m"))
    dotted = 'fusion.group = "desk"\nengine.kind = "openai"\n'
    assert tomllib.loads(applied(dotted, changes(before, candidate))) == {
        "fusion": {"group": "desk", "window_bars": 300},
        "engine": {"kind": "openai", "model": "m"},
    }
