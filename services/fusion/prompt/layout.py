"""The order of a prompt's pieces, slowest-changing first, so that within an epoch a prompt only grows.

head, rules | instrument | slower bars, frozen | pages of W bars | one piece a bar since the boundary | tail
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from services.fusion.prompt import wording
from services.fusion.prompt.chat import ChatTemplate, Piece, Special
from services.fusion.prompt.facts import fact_text
from services.fusion.prompt.lines import forming_line, slow_lines
from services.fusion.state.book import Book, CurrentVision, SlowBars

PAGE_BARS: Final = 16
"""Lines of a page: about 500 tokens, so that a slice sent ahead holds the GPU for hardly longer than a decision's own prefill."""


class Base(NamedTuple):
    """What an epoch's prompts start with: everything up to the boundary."""

    pieces: list[Piece]
    fixed: int
    """Pieces before the first page."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the pieces before the boundary are laid out."""

    template: ChatTemplate
    slow_window_bars: int
    """Lines that are shown of each slower interval."""

    def base(self, book: Book, interval: str, slow: Iterable[SlowBars], lines: Sequence[str]) -> Base:
        """Return the base that shows the slower intervals as `slow` has them, and `lines` of `interval`."""
        pieces: list[Piece] = [*self.template.head, wording.RULES, *self.template.middle, wording.instrument_block(book.instrument)]
        for frozen in slow:
            rows = slow_lines(book.bars[frozen.interval], frozen, self.slow_window_bars, book.decimals)
            pieces.append(wording.bars_heading(frozen.interval) + "".join(rows))
        pieces.append(wording.bars_heading(interval))
        fixed = len(pieces)
        pieces.extend("".join(lines[at : at + PAGE_BARS]) for at in range(0, len(lines), PAGE_BARS))
        return Base(pieces, fixed)


def tail_text(book: Book, interval: str, vision: CurrentVision, values: Mapping[str, float]) -> str:
    """Return the tail: time and session, open bars, facts, vision features, the question. Not cached: keep it short."""
    bars = book.bars[interval]
    parts = [wording.now_line(book.calendar, bars.last_close_ms)]
    if bars.forming is not None:
        parts.append(f"{interval} {forming_line(bars.forming, book.decimals)}")
    for slower, held in book.bars.items():
        if slower != interval and held.forming is not None and held.forming.ts_close_ms > bars.last_close_ms:
            parts.append(f"{slower} {forming_line(held.forming, book.decimals)}")
    parts.append(wording.facts_line([fact_text(name, value, book.decimals) for name, value in values.items()]))
    parts.append(wording.vision_line(vision, interval))
    parts.append(wording.QUESTION)
    return "".join(parts)


def visible(pieces: Iterable[Piece]) -> str:
    """Return pieces as people read them, special tokens by their names."""
    return "".join(piece.token if isinstance(piece, Special) else piece for piece in pieces)
