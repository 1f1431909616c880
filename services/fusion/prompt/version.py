"""The prompt version: a hash of a strategy and of how its prompts are worded and cut, taken from a specimen with every kind of line.

Derived, so that a change of wording cannot be forgotten; `tests/unit/fusion/prompt/golden` shows the same specimen to reviewers.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np

from schemas import Instrument, MarketFeatures, RunMode, VisionFeatures, interval_ms
from schemas.vision import Detector, Image, Pattern, Skill
from services.core.calendar import ALWAYS_OPEN, SessionCalendar
from services.core.fusion_settings import FusionSettings
from services.core.table_inputs import input_versions
from services.fusion.inputs.specimen import specimen_text
from services.fusion.prompt import wording
from services.fusion.prompt.chat import TEMPLATES, ChatTemplate, Piece
from services.fusion.prompt.facts import facts
from services.fusion.prompt.labels import CANDIDATES, Labels, question
from services.fusion.prompt.layout import PAGE_BARS, Layout, tail_text
from services.fusion.prompt.rules import rules
from services.fusion.prompt.short_tail import short_tail
from services.fusion.state.book import Book
from services.strategy.hooks import hook_versions
from services.strategy.model import Strategy

_START_MS: Final = 1_719_790_800_000
"""2024-06-30T23:40Z, a Sunday: a day begins in what is shown."""
_NOW: Final = datetime(2024, 7, 1, 16, tzinfo=UTC)
_SYMBOL: Final = "ACME.XNAS"
_INTERVALS: Final = ("1m", "5m")
_NO_IDS: Final = np.zeros(0, dtype=np.int32)
_SETTINGS: Final = FusionSettings(intervals=list(_INTERVALS), window_bars=20, epoch_slots=4, slow_window_bars=4)


def specimen(
    template: ChatTemplate,
    strategy: Strategy,
    *,
    vision: str = "fresh",
    form: wording.AnswerForm = "line",
    flash: bool = False,
    tables: bool = False,
) -> list[Piece]:
    """Return a whole prompt of `strategy`: two intervals, a gap, open bars, all facts, and vision features.

    `vision` is `fresh`, `stale`, `unskilled` or `absent`; with `flash` it is one of that mode, with `tables` it shows a position and notes.
    """
    settings = _SETTINGS.model_copy(update={"strategy": strategy})
    book = _book(settings, vision)
    bars = book.bars["1m"]
    epochs = book.epochs.boundaries("1m")
    boundary = bars.first_after(epochs.start_ms(epochs.index(bars.last_close_ms)))
    layout = Layout(template, rules(strategy, form, flash=flash), settings)
    frozen, entered = book.epochs.frozen("1m"), book.epochs.entered("1m")
    base = layout.base(book, "1m", frozen, entered, boundary)
    seen = book.current_vision("1m")
    tail = tail_text(book, "1m", frozen, seen, facts(book, "1m", seen))
    said = specimen_text(book, "1m", settings) if tables else ""
    if flash:
        tail = short_tail(tail, strategy, daily=False, question=said + question(Labels(CANDIDATES[0], _NO_IDS)))
    else:
        tail += said + wording.EXPLAINED_QUESTION[form]
    return [*base.pieces, *layout.since(book, "1m", frozen, entered, boundary), tail, *template.fast_tail]


def prompt_version(strategy: Strategy) -> str:
    """Return the strategy's name and the first 10 hex digits of the hash: all that the strategy says, and all that prompts say."""
    day = date(2024, 7, 1)
    content: list[object] = [
        strategy.hash,
        *hook_versions(strategy.hooks),
        *input_versions(strategy.inputs),
        sorted(TEMPLATES.items()),
        PAGE_BARS,
        wording.BREAK_ROW,
        wording.RATIONALE_QUESTION,
    ]
    content += [sorted(by_form.items()) for by_form in (wording.CONTRACT, wording.QUESTION, wording.EXPLAINED_QUESTION, wording.REPAIR)]
    content += [question(Labels(texts, _NO_IDS)) for texts in CANDIDATES]
    content += [wording.day_row(day), wording.year_row(day), wording.until("13:00"), [wording.bars_heading("1m", n) for n in range(3)]]
    content += [wording.now_row(_NOW, SessionCalendar.of("FX"), close) for close in (None, _NOW, _NOW + timedelta(days=1))]
    kinds = [(vision, flash) for flash in (False, True) for vision in ("fresh", "stale", "unskilled", "absent")]
    content += [specimen(TEMPLATES["none"], strategy, vision=vision, flash=flash) for vision, flash in kinds]
    content += [
        short_tail(wording.now_row(_NOW, SessionCalendar.of("FX"), _NOW), strategy, daily=daily, question="") for daily in (True, False)
    ]
    content.append(specimen(TEMPLATES["none"], strategy, tables=True))
    return f"{strategy.name}-{hashlib.blake2b(repr(content).encode(), digest_size=5).hexdigest()}"


_known: Final[dict[str, str]] = {}
"""Versions by the hash of their strategy: making one takes some milliseconds."""


def version_of(strategy: Strategy) -> str:
    """Return the prompt version of `strategy`, which signals and audit records name."""
    if strategy.hash not in _known:
        _known[strategy.hash] = prompt_version(strategy)
    return _known[strategy.hash]


def _book(settings: FusionSettings, vision: str) -> Book:
    instrument = Instrument(
        schema_version=1,
        run_mode=RunMode.DEMO,
        symbol=_SYMBOL,
        currency="USD",
        price_increment="0.01",
        calendar=ALWAYS_OPEN,
        price_adjustment="none",
    )
    book = Book(instrument, settings, SessionCalendar.of(ALWAYS_OPEN))
    for slot in range(32):
        if slot not in {7, 8, 30}:
            book.fold_market(_bar(settings.strategy, "1m", slot))
        if (slot + 1) % 5 == 0:
            book.fold_market(_bar(settings.strategy, "5m", slot // 5))
    book.fold_market(_bar(settings.strategy, "1m", 32, closed=False))
    book.fold_market(_bar(settings.strategy, "5m", 6, closed=False))
    if vision != "absent":
        skill = None if vision == "unskilled" else Skill(auc=0.56, auc_low=0.53, auc_high=0.59)
        book.fold_vision(_features(_START_MS + (30 if vision == "stale" else 32) * interval_ms("1m"), skill))
    return book


def _bar(strategy: Strategy, interval: str, slot: int, *, closed: bool = True) -> MarketFeatures:
    open_ms = _START_MS + slot * interval_ms(interval)
    close = 100.0 + (slot * 7 % 11) / 4
    return MarketFeatures(
        schema_version=1,
        run_mode=RunMode.DEMO,
        symbol=_SYMBOL,
        interval=interval,
        ts_open_ms=open_ms,
        ts_close_ms=open_ms + interval_ms(interval),
        open=close - 0.25,
        high=close + 0.5,
        low=close - 0.75,
        close=close,
        volume=1_250.0 * slot,
        closed=closed,
        features=_values(strategy) if slot else {},
    )


def _values(strategy: Strategy) -> dict[str, float]:
    """Return a number for every feature that the strategy shows."""
    return {name: (number - 4) * 1.2345 + 50 * (name == "rsi") for number, name in enumerate(strategy.shown_features)}


def _features(end_ms: int, skill: Skill | None) -> VisionFeatures:
    return VisionFeatures(
        schema_version=1,
        run_mode=RunMode.DEMO,
        symbol=_SYMBOL,
        interval="1m",
        window_end_ms=end_ms,
        window_bars=20,
        image=Image(spec="jkx-20/1", width=60, height=64, hash="0" * 16),
        detector=Detector(name="chart-cnn", version="1", horizon_bars=5, skill=skill),
        p_up=0.57,
        patterns=[
            Pattern(label="double_bottom", score=0.8, first_bar=3, last_bar=12),
            Pattern(label="hammer", score=0.6, first_bar=19, last_bar=19),
        ],
    )
