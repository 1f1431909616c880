"""The demo's recording is what the service makes of the shipped bars today. Needs the extra `vision`."""

from __future__ import annotations

import os

import pytest

if os.environ.get("CI") != "true":
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")

from schemas import RunMode
from services.feeds.samples import load_instruments, load_splits, load_stocks
from services.vision.loading import load_forecaster
from services.vision.record_features import record
from services.vision.recorded import load_recorded


async def test_the_recording_is_what_the_service_makes() -> None:
    """Everything but the fourth decimal of `p_up`, which processors may round apart."""
    made = await record(load_forecaster(), load_instruments(RunMode.DEMO), load_splits(RunMode.DEMO), load_stocks(RunMode.DEMO))
    recorded = load_recorded()
    assert len(made) == len(recorded)
    for features in made:
        known = recorded[features.symbol, features.window_end_ms]
        assert features.p_up == pytest.approx(known.p_up, abs=2e-4)
        assert features.model_copy(update={"p_up": known.p_up}) == known
