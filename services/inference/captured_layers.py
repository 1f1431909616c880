"""Before which layers of the target an EAGLE3 draft reads its hidden states: one rule for the plug-in that serves and the training."""

from __future__ import annotations

from collections.abc import Sequence


def layers_to_capture(num_layers: int, draft_layer_ids: Sequence[int] | None) -> tuple[int, ...]:
    """Return the layers before which the hidden state is kept, ascending.

    `draft_layer_ids` are the ids that the draft's `eagle_config` names; the output of layer n is the input of layer n + 1, so each
    is raised by one. None: layers 2, L // 2 and L - 3, as SGLang does for Llama. Raises ValueError for ids that the model lacks.
    """
    wanted = [2, num_layers // 2, num_layers - 3] if draft_layer_ids is None else [layer + 1 for layer in draft_layer_ids]
    if sorted(set(wanted)) != wanted or wanted[0] < 0 or wanted[-1] >= num_layers:
        raise ValueError(
            f"EAGLE3 cannot capture before layers {wanted}: they must ascend and lie within the target's {num_layers} layers; "
            f"check eagle_aux_hidden_state_layer_ids in the draft's config.json (here {draft_layer_ids})"
        )
    return tuple(wanted)
