"""Windows of a wanted size: how many bars make a prompt of so many tokens with the shipped tokenizer."""

from __future__ import annotations

from typing import Final

from benchmarks.feed import MINUTE_MS, START_MS, Walk, instrument
from schemas import MarketFeatures
from services.core.calendar import SessionCalendar
from services.core.fusion_settings import FusionSettings
from services.core.tokenizer import Tokenizer
from services.fusion.prompt.facts import facts
from services.fusion.prompt.layout import tail_text
from services.fusion.prompt.lines import Rows, digits_for
from services.fusion.prompt.rules import rules
from services.fusion.prompt.wording import QUESTION, instrument_block
from services.fusion.state.book import Book
from services.strategy.folder import shipped

_LOOKED_AT: Final = 256


def window_for(tokens: int, bars_since: float, tokenizer: Tokenizer, symbol: str) -> int:
    """Return the `window_bars` with which prompts of `symbol` have `tokens` tokens, `bars_since` bars after an epoch's boundary."""
    settings = FusionSettings(intervals=["1m"], window_bars=_LOOKED_AT)
    book = Book(instrument(symbol), settings, SessionCalendar.of("24x7"))
    walk = Walk(symbol, 0)
    for number in range(_LOOKED_AT):
        book.fold_market(MarketFeatures.decode(walk.bar(START_MS + number * MINUTE_MS)))
    vision = book.current_vision("1m")
    around = tail_text(book, "1m", book.epochs.frozen("1m"), vision, facts(book, "1m", vision)) + QUESTION["line"]
    fixed = sum(map(len, tokenizer.encode_batch([rules(shipped(), "line"), instrument_block(book.instrument, book.calendar.zone), around])))
    lines = Rows(book, "1m", digits_for(book.epochs.frozen("1m").range_bp)).before(_LOOKED_AT, _LOOKED_AT)
    a_line = sum(map(len, tokenizer.encode_batch(lines))) / len(lines)
    return round((tokens - fixed) / a_line - bars_since)
