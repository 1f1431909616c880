"""A plain MiniCPM in torch, small and written from its definition, to hold plug-in and converter against."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class PlainMiniCPM:
    """Random weights by their checkpoint names, and the forward pass over one prompt."""

    config: dict[str, Any]
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def random(cls, seed: int, *, layers: int = 6, hidden: int = 32, heads: int = 4, kv_heads: int = 2, vocab: int = 97) -> PlainMiniCPM:
        """Make a small model."""
        torch.manual_seed(seed)
        head_dim, middle = hidden // heads, 3 * hidden
        weights = {"model.embed_tokens.weight": torch.randn(vocab, hidden) * 0.1, "lm_head.weight": torch.randn(vocab, hidden)}
        weights["model.norm.weight"] = 1 + 0.1 * torch.randn(hidden)
        for layer in range(layers):
            name = f"model.layers.{layer}."
            weights |= {
                name + "self_attn.q_proj.weight": torch.randn(heads * head_dim, hidden) * 0.2,
                name + "self_attn.k_proj.weight": torch.randn(kv_heads * head_dim, hidden) * 0.2,
                name + "self_attn.v_proj.weight": torch.randn(kv_heads * head_dim, hidden) * 0.2,
                name + "self_attn.o_proj.weight": torch.randn(hidden, heads * head_dim) * 0.2,
                name + "mlp.gate_proj.weight": torch.randn(middle, hidden) * 0.2,
                name + "mlp.up_proj.weight": torch.randn(middle, hidden) * 0.2,
                name + "mlp.down_proj.weight": torch.randn(hidden, middle) * 0.2,
                name + "input_layernorm.weight": 1 + 0.1 * torch.randn(hidden),
                name + "post_attention_layernorm.weight": 1 + 0.1 * torch.randn(hidden),
            }
        config = {
            "architectures": ["MiniCPMForCausalLM"],
            "model_type": "minicpm",
            "auto_map": {"AutoConfig": "configuration_minicpm.MiniCPMConfig"},
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "intermediate_size": middle,
            "vocab_size": vocab,
            "max_position_embeddings": 128,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10_000.0,
            "hidden_act": "silu",
            "scale_emb": 12,
            "scale_depth": 1.4,
            "dim_model_base": 8,
            "tie_word_embeddings": False,
        }
        return cls(config, weights)

    @property
    def branch_scale(self) -> float:
        """Return what each branch's output is multiplied by."""
        return float(self.config["scale_depth"]) / math.sqrt(self.config["num_hidden_layers"])

    def norm(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        """Return the RMS norm with the weight of that name."""
        scaled = hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.config["rms_norm_eps"])
        return scaled * self.weights[name]

    def layer(self, number: int, hidden: torch.Tensor) -> torch.Tensor:
        """Return what one layer makes of (tokens, width)."""
        name = f"model.layers.{number}."
        tokens, width = hidden.shape
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        size = width // heads
        normed = self.norm(hidden, name + "input_layernorm.weight")
        q, k, v = (normed @ self.weights[f"{name}self_attn.{part}_proj.weight"].T for part in "qkv")
        q, k = (self._rotated(part.view(tokens, -1, size)) for part in (q, k))
        v = v.view(tokens, kv_heads, size)
        k, v = (part.repeat_interleave(heads // kv_heads, dim=1) for part in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(size)
        scores = scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -math.inf)
        attended = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).reshape(tokens, width)
        hidden = hidden + attended @ self.weights[name + "self_attn.o_proj.weight"].T * self.branch_scale
        normed = self.norm(hidden, name + "post_attention_layernorm.weight")
        gated = torch.nn.functional.silu(normed @ self.weights[name + "mlp.gate_proj.weight"].T)
        middle = gated * (normed @ self.weights[name + "mlp.up_proj.weight"].T)
        return hidden + middle @ self.weights[name + "mlp.down_proj.weight"].T * self.branch_scale

    def hidden_states(self, ids: torch.Tensor) -> list[torch.Tensor]:
        """Return the hidden state before every layer and after the last one, before the final norm."""
        states = [self.weights["model.embed_tokens.weight"][ids] * self.config["scale_emb"]]
        for number in range(self.config["num_hidden_layers"]):
            states.append(self.layer(number, states[-1]))
        return states

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Return (tokens, vocabulary)."""
        last = self.norm(self.hidden_states(ids)[-1], "model.norm.weight")
        width_ratio: float = self.config["hidden_size"] / self.config["dim_model_base"]
        return last / width_ratio @ self.weights["lm_head.weight"].T

    def _rotated(self, states: torch.Tensor) -> torch.Tensor:
        tokens, _, size = states.shape
        frequency = self.config["rope_theta"] ** (-torch.arange(0, size, 2).float() / size)
        angle = torch.outer(torch.arange(tokens).float(), frequency).repeat(1, 2)[:, None]
        half = torch.cat([-states[..., size // 2 :], states[..., : size // 2]], -1)
        return states * angle.cos() + half * angle.sin()
