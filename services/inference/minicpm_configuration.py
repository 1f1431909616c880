"""The `configuration_minicpm.py` that a model folder in MiniCPM's own form brings, since transformers has no such model."""

from __future__ import annotations

from typing import Final

CONFIGURATION: Final = """\
from transformers import PretrainedConfig


class MiniCPMConfig(PretrainedConfig):
    model_type = "minicpm"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self, scale_emb=1, scale_depth=1, dim_model_base=1, rope_theta=10000.0, rope_scaling=None, pad_token_id=None, **kwargs
    ):
        self.scale_emb = scale_emb
        self.scale_depth = scale_depth
        self.dim_model_base = dim_model_base
        self.rope_theta = rope_theta
        self.rope_scaling = rope_scaling
        # Some transformers give it no default, and SGLang's model reads it.
        self.pad_token_id = pad_token_id
        super().__init__(**kwargs)
"""
