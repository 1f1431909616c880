"""Makes the signal of an answer: its prices, validity and horizon, and what it rests on. Pure: nothing is sent here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas import AsOf, RunMode, Signal
from services.fusion.decide.answer import Abstain, Answer, Entry, Stand, action_of
from services.fusion.decide.prices import Prices, on_tick
from services.fusion.prompt.builder import Prompt
from services.fusion.prompt.labels import LabelAction
from services.fusion.state.book import Book
from services.fusion.state.triggers import Trigger
from services.fusion.state.vision_windows import CurrentVision
from services.inference.engine import EngineInfo
from services.strategy.hooks import BookView


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The book as it was when the prompt was planned: prices, validity and revisions are judged against it."""

    vision: CurrentVision
    close: float
    atr: float
    last_close_ms: int
    valid_until_ms: int
    version: int
    """The book's: another one means that bars in the prompt have been revised or rescaled since."""
    view: BookView | None
    """What hooks of the guard see; None without hooks."""


@dataclass(frozen=True, slots=True)
class SignalBasis:
    """What a signal rests on: who was asked with which prompt, how far both inputs were folded, and when it was decided."""

    run_mode: RunMode
    snapshot: Snapshot
    as_of: AsOf
    prompt: Prompt
    engine: EngineInfo
    cached_tokens: int | None
    degraded: bool
    decided_ms: int
    stages_ms: Mapping[str, float]
    probabilities: Mapping[LabelAction, float] | None = None
    """Of the actions: what mode `flash` decides by, and what an engine says beside an answer of mode `fast`."""


def make_signal(trigger: Trigger, book: Book, basis: SignalBasis, answer: Answer, priced: Prices | None) -> Signal:
    """Return the signal of `answer`; `priced` are its prices, None without an entry."""
    lane, instrument, snapshot, prompt, engine = trigger.lane, book.instrument, basis.snapshot, basis.prompt, basis.engine
    view = None if isinstance(answer, Abstain) else answer
    return Signal(
        schema_version=1,
        run_mode=basis.run_mode,
        symbol=lane.symbol,
        interval=lane.interval,
        mode=lane.mode,
        signal_id=trigger.signal_id,
        ts_decided_ms=basis.decided_ms,
        trigger_id=trigger.trigger_id,
        as_of=basis.as_of,
        valid_until_ms=snapshot.valid_until_ms,
        action=action_of(answer),
        abstain_reason=answer.reason if isinstance(answer, Abstain) else None,
        conviction=_conviction(view, basis.probabilities if lane.mode == "flash" else None),
        probabilities=None if basis.probabilities is None else dict(basis.probabilities),
        horizon_bars=None if view is None else view.horizon,
        horizon_end_ms=None if view is None else book.calendar.nth_close(lane.interval, snapshot.last_close_ms, view.horizon),
        ref_price=on_tick(snapshot.close, instrument),
        entry_type=priced.entry_type if priced else None,
        entry=priced.entry if priced else None,
        stop=priced.stop if priced else None,
        target=priced.target if priced else None,
        currency=instrument.currency,
        vision=snapshot.vision.state,
        vision_age_ms=snapshot.vision.age_ms,
        source=engine.source,
        degraded=basis.degraded,
        engine=engine.name,
        model=engine.model,
        prompt_version=prompt.version,
        prompt_hash=prompt.hash,
        epoch=prompt.epoch,
        prompt_tokens=len(prompt.ids),
        cached_tokens=basis.cached_tokens,
        latency_ms={**basis.stages_ms, "record_to_decision": float(basis.decided_ms - trigger.origin.ts_ms)},
    )


def _conviction(view: Entry | Stand | None, probabilities: Mapping[LabelAction, float] | None) -> float | None:
    if view is None:
        return None
    return view.conviction / 100 if probabilities is None else probabilities[view.action]
