"""The order of a prompt's pieces, slowest-changing first, so that within an epoch a prompt only grows.

head, rules | instrument | slower bars, frozen | pages of W bars | slower bars closed since | a piece a bar since the boundary | tail
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from services.core.fusion_settings import FusionSettings
from services.fusion.prompt import wording
from services.fusion.prompt.chat import ChatTemplate, Piece, Special
from services.fusion.prompt.facts import fact_texts
from services.fusion.prompt.lines import Rows, digits_for
from services.fusion.prompt.rules import shows_distances
from services.fusion.state.book import Book
from services.fusion.state.epochs import Frozen, SlowBar
from services.fusion.state.local_time import day_number, local
from services.fusion.state.vision_windows import CurrentVision

PAGE_BARS: Final = 16
"""Rows of a page: about 500 tokens, so that a slice sent ahead holds the GPU for hardly longer than a decision's own prefill."""

_SLOWER: Final = 2.0
"""A bar of four times the length has about twice the range, where an interval's own is not known yet."""


class Base(NamedTuple):
    """What an epoch's prompts start with: everything up to the boundary."""

    pieces: list[Piece]
    fixed: int
    """Pieces before the first page."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the pieces of a trigger interval's prompts are laid out."""

    template: ChatTemplate
    rules: str
    settings: FusionSettings

    def base(self, book: Book, interval: str, frozen: Frozen, until: Frozen, end: int) -> Base:
        """Return the base of an epoch that shows the bars of `interval` before index `end` and freezes `frozen`.

        Slower bars that closed after that, up to `until`, the state when the epoch was entered, follow the pages.
        """
        head = self._head(book, interval, frozen)
        pages = self.pages(book, interval, frozen, end, self.settings.window_bars)
        since = _slow_rows(book, frozen, book.epochs.closed_between(frozen, until))
        return Base([*head, *pages, *(["".join(since)] if since else [])], len(head))

    def next_base(self, book: Book, interval: str, frozen: Frozen, count: int) -> Base:
        """Return what is known of the base of the next epoch: full pages of its first `count` rows."""
        head = self._head(book, interval, frozen)
        whole = count - count % PAGE_BARS
        rows = _rows(book, interval, frozen).before(len(book.bars[interval]), count)[:whole]
        rows = rows[: len(rows) - len(rows) % PAGE_BARS]
        return Base([*head, *_paged(rows)], len(head))

    def pages(self, book: Book, interval: str, frozen: Frozen, end: int, count: int) -> list[str]:
        """Return the last `count` rows before index `end` as pages."""
        return _paged(_rows(book, interval, frozen).before(end, count))

    def since(self, book: Book, interval: str, frozen: Frozen, entered: Frozen, start: int) -> list[str]:
        """Return the rows since the boundary: those of `interval` from index `start` on and of the slower bars, as they were folded."""
        bars, own = book.bars[interval], _rows(book, interval, frozen)
        slow = book.epochs.closed_between(entered)
        if not slow:
            return [row for at in range(start, len(bars)) for row in own.at(at)]
        rows: list[tuple[int, list[str]]] = [(bars.sequence[at], own.at(at)) for at in range(start, len(bars))]
        rows += [(book.bars[bar.interval].sequence[bar.at], _slow_rows(book, frozen, [bar])) for bar in slow]
        return [row for _, of_bar in sorted(rows) for row in of_bar]

    def _head(self, book: Book, interval: str, frozen: Frozen) -> list[Piece]:
        instrument = wording.instrument_block(book.instrument, book.calendar.zone, dated=book.day_zero_ms is None)
        head: list[Piece] = [*self.template.head, self.rules, *self.template.middle, instrument]
        distances = shows_distances(self.settings.strategy)
        for slow in frozen.slow:
            digits = _digits(frozen, slow.interval)
            rows = Rows(book, slow.interval, digits).frozen(slow, self.settings.slow_window(slow.interval))
            head.append(wording.bars_heading(slow.interval, digits, distances=distances) + "".join(rows))
        head.append(wording.bars_heading(interval, _digits(frozen, interval), distances=distances))
        return head


def tail_text(book: Book, interval: str, frozen: Frozen, vision: CurrentVision, values: Mapping[str, float]) -> str:
    """Return the tail but for its question: time and session, open bars, facts, vision features. Not cached: keep it short."""
    bars, calendar = book.bars[interval], book.calendar
    last_ms = bars.last_close_ms
    close_ms = calendar.session_close_ms(last_ms)
    close = None if close_ms is None else local(close_ms, calendar.zone)
    now = local(last_ms, calendar.zone)
    parts = [wording.now_row(now, calendar, close, day_number(now.date(), calendar.zone, book.day_zero_ms))]
    if bars.forming is not None:
        parts.append(_rows(book, interval, frozen).open_bar(bars.forming))
    for slow in reversed(frozen.slow):
        forming = book.bars[slow.interval].forming
        if forming is not None and forming.ts_close_ms > last_ms:
            parts.append(_rows(book, slow.interval, frozen).open_bar(forming))
    if book.strategy.facts:
        parts.append(wording.facts_row(fact_texts(values, book.strategy.fact_of, book.decimals, _digits(frozen, interval))))
    parts.append(wording.vision_row(vision, interval, values.get("p_up")))
    return "".join(parts)


def visible(pieces: Iterable[Piece]) -> str:
    """Return pieces as people read them, special tokens by their names."""
    return "".join(piece.token if isinstance(piece, Special) else piece for piece in pieces)


def _rows(book: Book, interval: str, frozen: Frozen) -> Rows:
    return Rows(book, interval, _digits(frozen, interval))


def _digits(frozen: Frozen, interval: str) -> int:
    """Return the digits of basis points of one of the frozen intervals or, where it is none of them, of the trigger interval."""
    range_bp = next((slow.range_bp for slow in frozen.slow if slow.interval == interval), frozen.range_bp)
    if range_bp is None and frozen.range_bp is not None:
        range_bp = _SLOWER * frozen.range_bp
    return digits_for(range_bp)


def _slow_rows(book: Book, frozen: Frozen, bars: Iterable[SlowBar]) -> list[str]:
    """Return the rows of slower bars, each after its interval."""
    rows: list[str] = []
    for bar in bars:
        *before, own = _rows(book, bar.interval, frozen).at(bar.at)
        rows += [f"{bar.interval} {row}" for row in before]
        # A divider says of the fast rows' days nothing that they do not say themselves.
        rows.append(f"{bar.interval} {own.splitlines(keepends=True)[-1]}")
    return rows


def _paged(rows: list[str]) -> list[str]:
    return ["".join(rows[at : at + PAGE_BARS]) for at in range(0, len(rows), PAGE_BARS)]
