"""SGLang's MiniCPM class with the hooks that its EAGLE3 worker asks of a target.

Stock 0.5.17 and 0.5.23 have none, so that `--speculative-algorithm EAGLE3` ends in an AttributeError at start-up. The constructor,
the weights and the layers stay SGLang's own: only the two `forward` methods are replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sglang.srt.layers.rotary_embedding import RotaryEmbedding
from sglang.srt.models.minicpm import MiniCPMForCausalLM as StockMiniCPMForCausalLM
from sglang.srt.models.minicpm import MiniCPMModel as StockMiniCPMModel

from services.inference.captured_layers import layers_to_capture
from services.inference.sglang_plugin import capture, rope


class CapturingMiniCPMModel(StockMiniCPMModel):  # type: ignore[misc]
    """The transformer body, keeping the hidden states before `layers_to_capture`."""

    layers_to_capture: tuple[int, ...] = ()

    def forward(
        self, input_ids: torch.Tensor, positions: torch.Tensor, forward_batch: Any, input_embeds: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the normed hidden state (tokens, width), with the captured ones beside it when any are to be captured."""
        hidden = self.embed_tokens(input_ids) * self.config.scale_emb if input_embeds is None else input_embeds

        def call(layer: Any, states: torch.Tensor) -> torch.Tensor:
            after: torch.Tensor = layer(positions, states, forward_batch, None)[0]
            return after

        hidden, captured = capture.run_layers(self.layers, call, hidden, self.layers_to_capture)
        hidden = self.norm(hidden)
        return (hidden, captured) if captured else hidden


class MiniCPMForCausalLM(StockMiniCPMForCausalLM):  # type: ignore[misc]
    """MiniCPM4 / 4.1 as an EAGLE3 target. The class's name is the architecture that it takes over in SGLang's registry."""

    def __init__(self, config: Any, quant_config: Any = None, prefix: str = "") -> None:
        """Build the stock model, then let its body capture: SGLang's constructor names its own body class."""
        super().__init__(config, quant_config=quant_config, prefix=prefix)
        self.model.__class__ = CapturingMiniCPMModel
        self.capture_aux_hidden_states = False
        rope.fuse(self.model.layers, RotaryEmbedding)

    def forward(
        self, input_ids: torch.Tensor, positions: torch.Tensor, forward_batch: Any, input_embeds: torch.Tensor | None = None
    ) -> Any:
        """Return what SGLang's logits processor makes of the last hidden state and the captured ones."""
        with torch.no_grad():
            if input_embeds is not None:
                input_embeds = input_embeds * self.config.scale_emb
            hidden = self.model(input_ids, positions, forward_batch, input_embeds)
            captured = None
            if self.capture_aux_hidden_states:
                hidden, captured = hidden
            head = self.model.embed_tokens if self.config.tie_word_embeddings else self.lm_head
            return self.logits_processor(input_ids, hidden / self.scale_width, head, forward_batch, captured)

    def set_eagle3_layers_to_capture(self, layer_ids: Sequence[int] | None = None) -> None:
        """Capture for the draft's `layer_ids` (see `layers_to_capture`); called before CUDA graphs are captured."""
        self.model.layers_to_capture = layers_to_capture(self.config.num_hidden_layers, layer_ids)
        self.capture_aux_hidden_states = True

    def get_embed(self) -> torch.Tensor:
        """Return the embedding's weight, without scale_emb: the draft norms its embeddings, so the scale cancels."""
        weight: torch.Tensor = self.model.embed_tokens.weight
        return weight

    def get_embed_and_head(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weights of embedding and head, which EAGLE3 drafts share."""
        head = self.model.embed_tokens if self.config.tie_word_embeddings else self.lm_head
        return self.get_embed(), head.weight


EntryClass = MiniCPMForCausalLM
