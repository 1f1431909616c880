"""LongRoPE as one table: where its short and long factors agree, SGLang's fused rotary kernel serves it.

Stock SGLang 0.5.17 rotates LongRoPE in a handful of torch operations a layer, since which of two tables holds depends on the longest
position of the batch. MiniCPM4.1's two lists of factors are the same, so that the tables are too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch

FUSE_VARIABLE: Final = "AQUILINE_FUSED_LONGROPE"
"""Environment variable of the engine's process: `0` keeps SGLang's own LongRoPE, to compare the two."""


def one_table(rope: Any) -> torch.Tensor | None:
    """Return the table of cosines and sines (positions, rotary width) that holds for every batch, or None where there is none.

    `rope` is SGLang's LongRoPE module. Its long table holds all positions; its short one holds the first of them with the factors for
    short batches. None where `rope` is another kind, or where the two differ.
    """
    short, long = getattr(rope, "short_cos_sin_cache", None), getattr(rope, "long_cos_sin_cache", None)
    if short is None or long is None or rope.short_mscale != rope.long_mscale or list(rope.short_factor) != list(rope.long_factor):
        return None
    table: torch.Tensor = long if len(long) >= len(short) else short
    return table


def fuse(layers: Iterable[Any], make: Callable[..., Any], environment: Mapping[str, str] = os.environ) -> int:
    """Replace the LongRoPE of `layers` by SGLang's plain rotary embedding with LongRoPE's table; return how many were replaced.

    `make(head_size, rotary_dim, max_position, base, is_neox_style, dtype)` is that plain embedding's class. A layer whose table depends on
    the batch keeps what it has.
    """
    if environment.get(FUSE_VARIABLE, "").strip() == "0":
        return 0
    made: dict[int, Any] = {}  # SGLang shares one module among all layers
    replaced = 0
    for layer in layers:
        attention = layer.self_attn
        stock = attention.rotary_emb
        table = one_table(stock)
        if table is None:
            continue
        if id(stock) not in made:
            fused = make(stock.head_size, stock.rotary_dim, len(table), stock.base, is_neox_style=True, dtype=table.dtype)
            # The kernel reads float32, and LongRoPE's own table has been rounded to the model's type: compute it again.
            exact = stock._compute_cos_sin_cache(len(table), stock.long_factor, stock.long_mscale)  # noqa: SLF001 - SGLang has no public one
            fused.cos_sin_cache = exact.to(device=fused.cos_sin_cache.device, dtype=fused.cos_sin_cache.dtype)
            made[id(stock)] = fused
        attention.rotary_emb = made[id(stock)]
        replaced += 1
    return replaced
