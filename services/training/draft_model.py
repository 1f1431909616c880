"""An EAGLE3 draft in torch, as SGLang's `LlamaForCausalLMEagle3` computes it: one layer over the target's hidden states and tokens.

At a position it reads the target's three captured states and the embedding of the next token, and says the token after that; further
tokens of a chain it says from its own state. Source: Li et al., EAGLE-3 (2025), https://arxiv.org/abs/2503.01840.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import nn

CAPTURED: Final = 3
"""Hidden states of the target that are read, by default those before layers 2, L // 2 and L - 3."""


@dataclass(frozen=True, slots=True)
class DraftShape:
    """The widths of a draft; those of attention and vocabulary are the target's, the rest is free."""

    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    draft_vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float

    @classmethod
    def of(cls, target: dict[str, Any], *, intermediate_size: int, draft_vocab_size: int) -> DraftShape:
        """Return the shape of a draft for the target with this `config.json`."""
        heads = int(target["num_attention_heads"])
        return cls(
            hidden_size=int(target["hidden_size"]),
            num_attention_heads=heads,
            num_key_value_heads=int(target.get("num_key_value_heads") or heads),
            head_dim=int(target.get("head_dim") or target["hidden_size"] // heads),
            intermediate_size=intermediate_size,
            vocab_size=int(target["vocab_size"]),
            draft_vocab_size=draft_vocab_size,
            max_position_embeddings=int(target["max_position_embeddings"]),
            rms_norm_eps=float(target["rms_norm_eps"]),
            rope_theta=float(target.get("rope_theta") or (target.get("rope_parameters") or {}).get("rope_theta") or 10_000.0),
        )

    def config(self) -> dict[str, Any]:
        """Return the draft's `config.json`, as SGLang reads it."""
        return asdict(self) | {
            "architectures": ["LlamaForCausalLMEagle3"],
            "model_type": "llama",
            "num_hidden_layers": 1,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
        }


class _Norm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self._eps = eps

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        wide = states.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self._eps)
        return (normed * self.weight).to(states.dtype)


class _Attention(nn.Module):
    def __init__(self, shape: DraftShape) -> None:
        super().__init__()
        q, kv = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(2 * shape.hidden_size, q, bias=False)
        self.k_proj = nn.Linear(2 * shape.hidden_size, kv, bias=False)
        self.v_proj = nn.Linear(2 * shape.hidden_size, kv, bias=False)
        self.o_proj = nn.Linear(q, shape.hidden_size, bias=False)


class _Mlp(nn.Module):
    def __init__(self, shape: DraftShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down_proj(nn.functional.silu(self.gate_proj(states)) * self.up_proj(states))
        return out


class _Layer(nn.Module):
    def __init__(self, shape: DraftShape) -> None:
        super().__init__()
        self.self_attn = _Attention(shape)
        self.mlp = _Mlp(shape)
        self.hidden_norm = _Norm(shape.hidden_size, shape.rms_norm_eps)
        self.input_layernorm = _Norm(shape.hidden_size, shape.rms_norm_eps)
        self.post_attention_layernorm = _Norm(shape.hidden_size, shape.rms_norm_eps)


class Draft(nn.Module):
    """The draft. `chosen` int64 (draft_vocab_size,) are the target's ids that it can say, ascending."""

    chosen: torch.Tensor

    def __init__(self, shape: DraftShape, chosen: torch.Tensor) -> None:
        """Start from small random weights."""
        super().__init__()
        self.shape = shape
        self.fc = nn.Linear(CAPTURED * shape.hidden_size, shape.hidden_size, bias=False)
        self.midlayer = _Layer(shape)
        self.norm = _Norm(shape.hidden_size, shape.rms_norm_eps)
        self.lm_head = nn.Linear(shape.hidden_size, shape.draft_vocab_size, bias=False)
        self.register_buffer("chosen", chosen, persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)

    @torch.no_grad()
    def start_from(self, head: torch.Tensor, norm: torch.Tensor) -> None:
        """Begin with the target's own head and norm, and pass on the last captured state."""
        self.lm_head.weight.copy_(head[self.chosen])
        self.norm.weight.copy_(norm)
        eye = torch.eye(self.shape.hidden_size, device=self.fc.weight.device)
        self.fc.weight[:, -self.shape.hidden_size :] += eye

    def forward(self, captured: torch.Tensor, embeds: torch.Tensor, starts: torch.Tensor, steps: int) -> list[torch.Tensor]:
        """Return the logits (rows, starts, draft vocabulary) of each step of the chains that begin at `starts`.

        `captured` (rows, tokens, 3 widths) are the target's states at each position, `embeds` (rows, tokens, width) those of the token
        after each. A chain that begins at position i attends to the target's positions up to i and to its own later ones; at step s it
        reads the token i + 1 + s and says token i + 2 + s. `starts` (rows, starts) hold i, with i + steps below the number of tokens.
        """
        fused = self.fc(captured)
        inner = self.midlayer
        both = torch.cat([inner.input_layernorm(embeds), inner.hidden_norm(fused)], -1)
        places = torch.arange(both.shape[1], device=both.device).expand(both.shape[:2])
        keys, values = self._keys_and_values(both, places)
        visible = places[:, None, :] <= starts[..., None]
        hidden = _at(fused, starts)
        logits: list[torch.Tensor] = []
        own_keys: list[torch.Tensor] = []
        own_values: list[torch.Tensor] = []
        for step in range(steps):
            read = torch.cat([inner.input_layernorm(_at(embeds, starts + step)), inner.hidden_norm(hidden)], -1)
            if step:
                key, value = self._keys_and_values(read, starts + step)
                own_keys.append(key)
                own_values.append(value)
            hidden = hidden + self._attended(read, starts + step, (keys, values, visible), own_keys, own_values)
            hidden = hidden + inner.mlp(inner.post_attention_layernorm(hidden))
            logits.append(self.lm_head(self.norm(hidden)))
        return logits

    def _keys_and_values(self, read: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys, rotated, and values (rows, heads, positions, head width), repeated for the heads that share them."""
        shape, attention = self.shape, self.midlayer.self_attn
        repeats = shape.num_attention_heads // shape.num_key_value_heads
        split = (*read.shape[:2], shape.num_key_value_heads, shape.head_dim)
        keys = self._rotated(attention.k_proj(read).view(split), places)
        values = attention.v_proj(read).view(split)
        return tuple(part.transpose(1, 2).repeat_interleave(repeats, dim=1) for part in (keys, values))  # type: ignore[return-value]

    def _attended(
        self,
        read: torch.Tensor,
        places: torch.Tensor,
        shared: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        own_keys: list[torch.Tensor],
        own_values: list[torch.Tensor],
    ) -> torch.Tensor:
        shape, attention = self.shape, self.midlayer.self_attn
        keys, values, visible = shared
        queries = attention.q_proj(read).view(*read.shape[:2], shape.num_attention_heads, shape.head_dim)
        queries = self._rotated(queries, places).transpose(1, 2)
        scores = queries @ keys.transpose(-1, -2) / math.sqrt(shape.head_dim)
        scores = scores.masked_fill(~visible[:, None], -torch.inf)
        own = [(queries * key).sum(-1, keepdim=True) / math.sqrt(shape.head_dim) for key in own_keys]
        weights = torch.cat([scores, *own], -1).float().softmax(-1).to(values.dtype)
        out = weights[..., : keys.shape[2]] @ values
        for number, value in enumerate(own_values):
            out = out + weights[..., keys.shape[2] + number, None] * value
        attended: torch.Tensor = attention.o_proj(out.transpose(1, 2).reshape(*read.shape[:2], -1))
        return attended

    def _rotated(self, states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return (rows, positions, heads, width) rotated by position, halves beside each other."""
        half = self.shape.head_dim // 2
        frequency = self.shape.rope_theta ** (-torch.arange(half, device=states.device).float() / half)
        angle = (places.float()[..., None] * frequency)[:, :, None]
        cosine, sine = angle.cos().to(states.dtype), angle.sin().to(states.dtype)
        first, second = states[..., :half], states[..., half:]
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the tensors by the names that SGLang loads, bfloat16, with `d2t` and `t2d`.

        `d2t[i]` is the target's id of the draft's token i, less i; `t2d` says of each of the target's ids whether the draft has it.
        """
        tensors = {name: tensor.detach().bfloat16().cpu().contiguous() for name, tensor in self.state_dict().items()}
        chosen = self.chosen.cpu()
        has = torch.zeros(self.shape.vocab_size, dtype=torch.bool)
        has[chosen] = True
        return tensors | {"d2t": chosen - torch.arange(chosen.numel()), "t2d": has}


def _at(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return (rows, places, width): `states` (rows, positions, width) at the places of each row."""
    return states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
