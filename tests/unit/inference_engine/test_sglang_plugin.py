"""What the plug-in captures, against a plain model of the same weights, and the one table that it makes of LongRoPE's two."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.captured_layers import layers_to_capture
from services.inference.sglang_plugin import capture, rope
from tests.unit.inference_engine.minicpm import PlainMiniCPM


@settings(max_examples=12, deadline=None)
@given(layers=st.integers(7, 12), seed=st.integers(0, 1_000))
def test_captured_states_are_those_before_the_draft_s_layers_and_the_last_one_is_untouched(layers: int, seed: int) -> None:
    model = PlainMiniCPM.random(seed, layers=layers)
    ids = torch.arange(11) * 7 % 97
    before = model.hidden_states(ids)
    wanted = layers_to_capture(layers, None)
    last, captured = capture.run_layers(range(layers), model.layer, before[0], wanted)
    torch.testing.assert_close(last, before[-1])
    assert len(captured) == 3
    for state, layer in zip(captured, (2, layers // 2, layers - 3), strict=True):
        torch.testing.assert_close(state, before[layer])


def test_captured_states_are_not_changed_by_the_layers_after_them() -> None:
    model = PlainMiniCPM.random(3)
    start = model.hidden_states(torch.arange(5))[0]
    _, captured = capture.run_layers(range(6), model.layer, start, (2,))
    kept = captured[0].clone()
    model.layer(2, captured[0])
    assert torch.equal(kept, captured[0])


def test_ids_named_by_the_draft_mean_outputs_so_that_each_is_raised_by_one() -> None:
    assert layers_to_capture(32, None) == (2, 16, 29)
    assert layers_to_capture(32, [1, 15, 28]) == (2, 16, 29)


@pytest.mark.parametrize("ids", [[1, 15, 40], [15, 1, 28], [3, 3, 4], [-4, 2, 3]])
def test_layers_that_the_target_lacks_or_that_do_not_ascend_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="eagle_aux_hidden_state_layer_ids"):
        layers_to_capture(32, ids)


class StockLongRope:
    """SGLang's LongRoPE in its arithmetic: a short and a long table, of which the batch's longest position chooses one."""

    def __init__(self, short: list[float], long: list[float], *, native: int, most: int) -> None:
        self.head_size = self.rotary_dim = 2 * len(long)
        self.base = 10_000
        self.native = native
        scale = most / native
        self.short_mscale = self.long_mscale = math.sqrt(1 + math.log(scale) / math.log(native)) if scale > 1 else 1.0
        self.short_factor, self.long_factor = short, long
        self.short_cos_sin_cache = self._compute_cos_sin_cache(native, short, self.short_mscale).bfloat16()
        self.long_cos_sin_cache = self._compute_cos_sin_cache(most, long, self.long_mscale).bfloat16()

    def _compute_cos_sin_cache(self, positions: int, factors: list[float], mscale: float) -> torch.Tensor:
        exponents = torch.arange(0, self.rotary_dim, 2, dtype=torch.float) / self.rotary_dim
        frequencies = 1.0 / (torch.tensor(factors) * self.base**exponents)
        angles = torch.outer(torch.arange(positions, dtype=torch.float), frequencies)
        return torch.cat([angles.cos() * mscale, angles.sin() * mscale], dim=-1)

    def rows(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the rows that a batch with these positions is turned by."""
        return (self.long_cos_sin_cache if bool((positions > self.native).any()) else self.short_cos_sin_cache)[positions]


@dataclass
class PlainRope:
    """What SGLang's plain rotary embedding holds."""

    head_size: int
    rotary_dim: int
    max_position: int
    base: int
    is_neox_style: bool
    dtype: torch.dtype
    cos_sin_cache: torch.Tensor = field(default_factory=lambda: torch.zeros(1))


def layers_with(stock: Any, count: int = 3) -> list[Any]:
    return [SimpleNamespace(self_attn=SimpleNamespace(rotary_emb=stock)) for _ in range(count)]


@settings(max_examples=20, deadline=None)
@given(
    factors=st.lists(st.floats(0.5, 100), min_size=4, max_size=4),
    most=st.sampled_from([64, 96, 128]),
    positions=st.lists(st.integers(0, 63), min_size=1, max_size=20),
)
def test_one_table_turns_every_batch_as_the_two_equal_ones_did(factors: list[float], most: int, positions: list[int]) -> None:
    stock = StockLongRope(factors, list(factors), native=64, most=most)
    layers = layers_with(stock)
    assert rope.fuse(layers, PlainRope, {}) == 3
    fused = layers[0].self_attn.rotary_emb
    assert all(layer.self_attn.rotary_emb is fused for layer in layers)
    assert fused.cos_sin_cache.shape == (most, 8)
    for batch in (torch.tensor(positions), torch.tensor([*positions, most - 1])):
        torch.testing.assert_close(fused.cos_sin_cache[batch], stock.rows(batch).float(), rtol=1e-2, atol=1e-2)


def test_two_different_tables_and_other_ropes_are_left_alone() -> None:
    two = layers_with(StockLongRope([1.0, 2.0], [1.0, 3.0], native=64, most=128))
    plain = layers_with(SimpleNamespace(cos_sin_cache=torch.zeros(1)))
    for layers in (two, plain):
        before = layers[0].self_attn.rotary_emb
        assert rope.fuse(layers, PlainRope, {}) == 0
        assert layers[0].self_attn.rotary_emb is before


def test_fusing_can_be_switched_off_to_compare() -> None:
    layers = layers_with(StockLongRope([1.0, 2.0], [1.0, 2.0], native=64, most=128))
    assert rope.fuse(layers, PlainRope, {rope.FUSE_VARIABLE: "0"}) == 0
