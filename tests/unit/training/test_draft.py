"""The draft's parallel chains are those that an engine computes one token after the other, and training makes them accepted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from services.training.draft_model import Draft, DraftShape
from services.training.draft_training import DraftSettings, chains_of, choose_vocabulary, train_draft
from services.training.tiny import tiny_model
from tests.unit.training.build import VOCABULARY, examples

SHAPE = DraftShape(
    hidden_size=16,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=4,
    intermediate_size=24,
    vocab_size=VOCABULARY,
    draft_vocab_size=10,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    rope_theta=10_000.0,
)


def _draft() -> Draft:
    torch.manual_seed(3)
    return Draft(SHAPE, torch.arange(5, 15)).requires_grad_(requires_grad=False)


def _one_after_the_other(draft: Draft, captured: torch.Tensor, embeds: torch.Tensor, start: int, steps: int) -> list[torch.Tensor]:
    """Return a chain's logits as an engine makes them: a growing list of keys and values, one query at a time."""
    layer, shape = draft.midlayer, draft.shape

    def keys_and_values(read: torch.Tensor, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = draft._keys_and_values(read[None, None], torch.tensor([[place]]))
        return keys[0, :, 0], values[0, :, 0]

    def reading(embed: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return torch.cat([layer.input_layernorm(embed), layer.hidden_norm(hidden)])

    fused = draft.fc(captured)
    cache = [keys_and_values(reading(embeds[place], fused[place]), place) for place in range(start + 1)]
    hidden = fused[start]
    logits = []
    for step in range(steps):
        read = reading(embeds[start + step], hidden)
        if step:
            cache.append(keys_and_values(read, start + step))
        query = draft._rotated(
            layer.self_attn.q_proj(read).view(1, 1, shape.num_attention_heads, shape.head_dim), torch.tensor([[start + step]])
        )[0, 0]
        keys, values = (torch.stack(parts) for parts in zip(*cache, strict=True))
        weights = (torch.einsum("hd,phd->hp", query, keys) / shape.head_dim**0.5).softmax(-1)
        attended = torch.einsum("hp,phd->hd", weights, values).reshape(-1)
        hidden = hidden + layer.self_attn.o_proj(attended)
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        logits.append(draft.lm_head(draft.norm(hidden)))
    return logits


def test_chains_side_by_side_are_those_made_one_token_after_the_other() -> None:
    draft = _draft()
    captured, embeds = torch.randn(2, 12, 48), torch.randn(2, 12, 16)
    starts = torch.tensor([[3, 4, 8], [0, 5, 9]])
    together = draft(captured, embeds, starts, 3)
    for row in range(2):
        for column in range(3):
            alone = _one_after_the_other(draft, captured[row], embeds[row], int(starts[row, column]), 3)
            for step in range(3):
                torch.testing.assert_close(together[step][row, column], alone[step], rtol=1e-4, atol=1e-5)


def test_a_chain_sees_nothing_of_the_target_after_its_start() -> None:
    draft = _draft()
    captured, embeds = torch.randn(1, 12, 48), torch.randn(1, 12, 16)
    starts = torch.tensor([[4]])
    before = draft(captured, embeds, starts, 3)
    changed = captured.clone()
    changed[:, 5:] += 1
    for one, other in zip(before, draft(changed, embeds, starts, 3), strict=True):
        torch.testing.assert_close(one, other)


def test_chains_begin_where_a_taught_token_is_known_and_count_while_taught_tokens_follow() -> None:
    taught = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 0]]).bool()
    chains = chains_of(taught, 3)
    found = [
        {
            (int(start), int(chains.counts[:, row, column].sum()))
            for column, start in enumerate(chains.starts[row])
            if chains.counts[0, row, column]
        }
        for row in range(2)
    ]
    # A chain at i reads token i + 1 and says i + 2.
    assert found == [{(2, 3), (3, 2), (4, 1)}, {(1, 1), (5, 2), (6, 1)}]


def test_the_vocabulary_holds_what_answers_use_most() -> None:
    some = examples(8)
    chosen = choose_vocabulary(some, VOCABULARY, 6)
    assert {int(token) for one in some for token in one.answer_ids} <= set(chosen.tolist())
    assert chosen.tolist() == sorted(chosen.tolist())


def test_training_makes_the_target_accept_more_and_writes_what_sglang_loads(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", examples(4), vocab_size=VOCABULARY)
    # Larger embeddings make the tied head sure of its tokens, so that there is something to agree on.
    tensors = load_file(model / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"] * 20
    save_file(tensors, str(model / "model.safetensors"), metadata={"format": "pt"})

    def trained(folder: str, steps: int) -> float:
        settings = DraftSettings(intermediate_size=32, draft_vocab_size=32, batch_tokens=400, epochs=60, steps=steps, learning_rate=3e-3)
        train_draft(model, examples(24), examples(8), tmp_path / folder, settings, progress=lambda _line: None)
        accepted: float = json.loads((tmp_path / folder / "training.json").read_text())["held_out"]["tokens_a_step"]
        return accepted

    assert trained("draft", 100) > trained("untrained", 1) + 0.3
    tensors = load_file(tmp_path / "draft" / "model.safetensors")
    config = json.loads((tmp_path / "draft" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLMEagle3"]
    assert config["draft_vocab_size"] == tensors["lm_head.weight"].shape[0] == tensors["d2t"].shape[0] == 32
    ids = (tensors["d2t"] + torch.arange(32)).numpy()
    assert np.array_equal(np.flatnonzero(tensors["t2d"].numpy()), ids)
    assert {"fc.weight", "norm.weight", "midlayer.hidden_norm.weight", "midlayer.self_attn.q_proj.weight"} <= set(tensors)
    assert tensors["midlayer.self_attn.q_proj.weight"].shape == (32, 64)
