"""What the plug-in captures, against a plain model of the same weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.sglang_plugin import capture
from tests.unit.inference_engine.minicpm import PlainMiniCPM


@settings(max_examples=12, deadline=None)
@given(layers=st.integers(7, 12), scale=st.sampled_from([1.0, 0.2475]), seed=st.integers(0, 1_000))
def test_captured_states_are_those_before_the_draft_s_layers_and_the_last_one_is_untouched(layers: int, scale: float, seed: int) -> None:
    model = PlainMiniCPM.random(seed, layers=layers)
    ids = torch.arange(11) * 7 % 97
    before = model.hidden_states(ids)
    wanted = capture.layers_to_capture(layers, None)
    last, captured = capture.run_layers(range(layers), model.layer, before[0], wanted, scale)
    torch.testing.assert_close(last, before[-1])
    assert len(captured) == 3
    for state, layer in zip(captured, (2, layers // 2, layers - 3), strict=True):
        torch.testing.assert_close(state, before[layer] * scale)


def test_captured_states_are_not_changed_by_the_layers_after_them() -> None:
    model = PlainMiniCPM.random(3)
    start = model.hidden_states(torch.arange(5))[0]
    _, captured = capture.run_layers(range(6), model.layer, start, (2,), 1.0)
    kept = captured[0].clone()
    model.layer(2, captured[0])
    assert torch.equal(kept, captured[0])


def test_ids_named_by_the_draft_mean_outputs_so_that_each_is_raised_by_one() -> None:
    assert capture.layers_to_capture(32, None) == (2, 16, 29)
    assert capture.layers_to_capture(32, [1, 15, 28]) == (2, 16, 29)


@pytest.mark.parametrize("ids", [[1, 15, 40], [15, 1, 28], [3, 3, 4], [-4, 2, 3]])
def test_layers_that_the_target_lacks_or_that_do_not_ascend_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="eagle_aux_hidden_state_layer_ids"):
        capture.layers_to_capture(32, ids)


def test_the_aux_scale_comes_from_the_environment() -> None:
    assert capture.aux_scale(1.4, 32, {}) == 1.0
    assert capture.aux_scale(1.4, 32, {capture.AUX_SCALE_VARIABLE: "residual"}) == pytest.approx(0.2475, abs=1e-4)
    assert capture.aux_scale(1.4, 32, {capture.AUX_SCALE_VARIABLE: "0.5"}) == 0.5


@pytest.mark.parametrize("text", ["x", "0", "-1", "nan", "inf"])
def test_an_aux_scale_that_is_no_positive_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=capture.AUX_SCALE_VARIABLE):
        capture.aux_scale(1.4, 32, {capture.AUX_SCALE_VARIABLE: text})
