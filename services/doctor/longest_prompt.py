"""The longest prompt that the settings allow, built by the worker's own prompt builder from made-up bars."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import numpy as np

from schemas import Detector, Image, Instrument, MarketFeatures, Mode, Pattern, Skill, VisionFeatures, interval_ms
from services.core.calendar import ALWAYS_OPEN, SessionCalendar
from services.core.chat_template import TemplateError, reference_ids, rendered
from services.core.clock import SystemClock
from services.core.settings import Settings
from services.core.tokenizer import Tokenizer
from services.doctor.engine_findings import PromptFacts
from services.fusion.prompt.builder import Prompt, PromptBuilder
from services.fusion.prompt.store import PrefixStore
from services.fusion.state.book import Book
from services.inference.engine import THOUGHT_END

_LATE_MS: Final = 1_763_424_000_000
"""2025-11-18T00:00Z."""
_PRICES: Final = (98_765.43, 99_876.54, 87_654.32, 91_234.56)
"""Open, high, low and close that make the widest line of a bar."""


async def longest_prompt(settings: Settings, tokenizer: Tokenizer) -> PromptFacts:
    """Return the sizes of a prompt at the end of an epoch with full windows; raise ValueError when the tokenizer lacks a token."""
    prompt, _ = await _built(settings, tokenizer, "deep" if _asks_deep(settings) else settings.fusion.mode)
    return PromptFacts(prompt.ids.size, prompt.prefix_tokens)


async def id_difference(settings: Settings, tokenizer: Tokenizer, tokenizer_file: Path) -> str | None:
    """Return where a whole prompt differs from what the model's own chat template and tokenizer give, None where it does not.

    Prompts of each mode that the settings use are compared. The template lies beside `tokenizer_file`. Raises TemplateError when there is
    none, ValueError when the tokenizer lacks a token.
    """
    for mode in (settings.fusion.mode, "deep") if _asks_deep(settings) else (settings.fusion.mode,):
        prompt, (system, user) = await _built(settings, tokenizer, mode)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        try:
            text = rendered(tokenizer_file, messages, thinking=mode == "deep")
        except TemplateError as error:
            rendered(tokenizer_file, messages[1:], thinking=False)  # raises where not even the user's words can be rendered
            return f"prompts begin with a system message, which the model's own chat template does not take ({error})"
        expected = await asyncio.to_thread(reference_ids, tokenizer_file, text)
        # In mode deep the thought is opened for the model, which a template may leave to it.
        ours = prompt.ids[: expected.size] if mode == "deep" else prompt.ids
        if not np.array_equal(ours, expected):
            shared = min(ours.size, expected.size)
            at = int(np.argmax(np.append(ours[:shared] != expected[:shared], True)))
            near = slice(max(0, at - 2), at + 4)
            return (
                f"token {at:,} of a prompt in mode {mode} is {tokenizer.decode(ours[near])!r} {ours[near].tolist()}, and the model's own "
                f"chat template gives {tokenizer.decode(expected[near])!r} {expected[near].tolist()}"
            )
        if mode == "deep":
            opening = tokenizer.decode(prompt.ids[expected.size :])
            return _thought_difference(opening, text, rendered(tokenizer_file, messages, thinking=False))
    return None


def _thought_difference(opening: str, thinking: str, not_thinking: str) -> str | None:
    """Return what is wrong with a prompt in mode deep that is `thinking` and `opening`, None when nothing is.

    `thinking` and `not_thinking` are what the model's own template makes with thinking switched on and off. A template that leaves the
    thought's opening to the model shows it in the empty thought that it writes with thinking switched off.
    """
    own = "the model's own chat template"
    if thinking == not_thinking:
        return f"mode deep asks for a thought, and {own} has none to switch on or off (enable_thinking): leave fusion.deep_* out"
    if opening and not not_thinking.startswith(thinking + opening):
        shown = not_thinking[len(thinking) :] if not_thinking.startswith(thinking) else not_thinking[-80:]
        return f"a prompt in mode deep opens the thought with {opening!r}, and {own} writes an empty one as {shown!r}"
    if not_thinking.startswith(thinking) and THOUGHT_END not in not_thinking[len(thinking) :]:
        return f"a thought is read up to {THOUGHT_END!r}, and {own} ends an empty one otherwise: {not_thinking[len(thinking) :]!r}"
    return None


def _asks_deep(settings: Settings) -> bool:
    return bool(settings.fusion.deep_every_bars or settings.fusion.deep_on_move_atr is not None)


async def _built(settings: Settings, tokenizer: Tokenizer, mode: Mode) -> tuple[Prompt, tuple[str, str]]:
    """Return a prompt at the end of an epoch with full windows, and the same as (system, user) text."""
    store = PrefixStore(None, settings.redis, SystemClock(), "doctor")
    builder = PromptBuilder(settings.fusion, tokenizer, settings.engine.chat_template, store, settings.redis.local_bytes)
    interval = min(settings.fusion.trigger_interval_set, key=interval_ms)
    plan = builder.plan(_full_book(settings, interval), interval, mode)
    return await builder.build(plan), builder.text(plan)


def _full_book(settings: Settings, interval: str) -> Book:
    """Return a book whose last bar is the last one of an epoch of `interval`."""
    instrument = Instrument(
        schema_version=1,
        run_mode=settings.run_mode,
        symbol="LONGEST-NAME-IN-USE.XNAS",
        currency="USD",
        price_increment="0.01",
        calendar=ALWAYS_OPEN,
        price_adjustment="none",
    )
    book = Book(instrument, settings.fusion, SessionCalendar.of(ALWAYS_OPEN))
    epochs = book.epochs.boundaries(interval)
    end_ms = epochs.start_ms(epochs.index(_LATE_MS) + 1)
    bars = []
    for name, held in book.bars.items():
        length = interval_ms(name)
        last_ms = end_ms // length * length
        bars += [_bar(settings, name, last_ms - (held.keep - number) * length) for number in range(held.keep + 1)]
    for bar in sorted(bars, key=lambda bar: bar.ts_close_ms):
        if bar.ts_close_ms <= end_ms:
            book.fold_market(bar)
    for name in book.bars:
        book.fold_market(_bar(settings, name, book.bars[name].last_close_ms, closed=False))
    book.fold_vision(_vision(settings, interval, end_ms))
    return book


def _bar(settings: Settings, interval: str, open_ms: int, *, closed: bool = True) -> MarketFeatures:
    open_, high, low, close = _PRICES
    return MarketFeatures(
        schema_version=1,
        run_mode=settings.run_mode,
        symbol="LONGEST-NAME-IN-USE.XNAS",
        interval=interval,
        ts_open_ms=open_ms,
        ts_close_ms=open_ms + interval_ms(interval),
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=98_765_432.0,
        closed=closed,
        features=dict.fromkeys(settings.fusion.strategy.shown_features, 12_345.678),
    )


def _vision(settings: Settings, interval: str, end_ms: int) -> VisionFeatures:
    return VisionFeatures(
        schema_version=1,
        run_mode=settings.run_mode,
        symbol="LONGEST-NAME-IN-USE.XNAS",
        interval=interval,
        window_end_ms=end_ms,
        window_bars=60,
        image=Image(spec="jkx-60/1", width=180, height=96, hash="0" * 16),
        detector=Detector(name="chart-cnn", version="1", horizon_bars=5, skill=Skill(auc=0.56, auc_low=0.53, auc_high=0.59)),
        p_up=0.5,
        patterns=[Pattern(label=f"inverse_head_and_shoulders_{n}", score=0.9, first_bar=10, last_bar=59) for n in range(4)],
    )
