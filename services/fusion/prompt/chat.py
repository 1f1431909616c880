"""Chat templates: how a prompt's head and tail are wrapped for a model, special tokens by name.

The head belongs to the cached prefix; modes differ only in the tail, so that `fast` and `deep` share one prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Special:
    """A special token, inserted by id; text never becomes one."""

    token: str


Piece = str | Special


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """`head` + system text + `middle` + user text + `tail[mode]`."""

    head: tuple[Piece, ...]
    middle: tuple[Piece, ...]
    fast_tail: tuple[Piece, ...]
    deep_tail: tuple[Piece, ...]
    next_user: tuple[Piece, ...]
    """From an answer's end to the next user text."""

    def tail(self, mode: str) -> tuple[Piece, ...]:
        """Return what follows the user text in `mode`."""
        return self.deep_tail if mode == "deep" else self.fast_tail


_IM_START: Final = Special("<|im_start|>")
_IM_END: Final = Special("<|im_end|>")


def _to_assistant(opening: str = "") -> tuple[Piece, ...]:
    """Return what leads to the answer, whose first words `opening` is: one piece with what it follows, as the model was trained."""
    return (_IM_END, "\n", _IM_START, f"assistant\n{opening}")


_CHATML_HEAD: Final = (_IM_START, "system\n")
_CHATML_MIDDLE: Final = (_IM_END, "\n", _IM_START, "user\n")
_CHATML_NEXT: Final = (_IM_END, "\n", _IM_START, "user\n")

TEMPLATES: Final[dict[str, ChatTemplate]] = {
    # OpenBMB's hybrid reasoning: an empty thought in the assistant's mouth is what `enable_thinking=False` renders.
    "minicpm4": ChatTemplate(
        head=(Special("<s>"), *_CHATML_HEAD),
        middle=_CHATML_MIDDLE,
        fast_tail=_to_assistant("<think>\n\n</think>\n\n"),
        deep_tail=_to_assistant("<think>\n"),
        next_user=_CHATML_NEXT,
    ),
    "chatml": ChatTemplate(
        head=_CHATML_HEAD,
        middle=_CHATML_MIDDLE,
        fast_tail=_to_assistant(),
        deep_tail=_to_assistant("<think>\n"),
        next_user=_CHATML_NEXT,
    ),
    "none": ChatTemplate(
        head=(), middle=("\n",), fast_tail=("\nAnswer:\n",), deep_tail=("\nThought, then answer:\n<think>\n",), next_user=("\n",)
    ),
}
