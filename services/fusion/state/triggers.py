"""Triggers: reasons to ask the model, decided over event time alone, so that a rebuild comes to the same ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid5

import structlog

from schemas import Mode, OffsetRef
from services.core import metrics
from services.core.fusion_settings import FusionSettings
from services.strategy.hooks import BookView, HookError, Hooks

_log = structlog.get_logger()


class LaneKey(NamedTuple):
    """The place in the queue that triggers of one symbol, interval and mode share."""

    symbol: str
    interval: str
    mode: Mode


@dataclass(frozen=True, slots=True)
class Trigger:
    """One reason to ask: `kind` is `closed_bar`, `vision`, `move`, `deep` or a hook's reason; `origin` the record that gave it."""

    trigger_id: UUID
    kind: str
    lane: LaneKey
    origin: OffsetRef
    window_end_ms: int
    """`ts_close_ms` of the last closed bar when it was made: the window whose vision features it waits for."""
    made_ms: int
    """When the worker made it, on its own clock."""

    @property
    def signal_id(self) -> UUID:
        """Return the id that a signal answering this trigger carries, whoever makes it and however often."""
        return uuid5(self.trigger_id, self.lane.mode)


class TriggerIds:
    """Derives trigger ids from records, so that a record that is delivered again makes the same trigger."""

    def __init__(self, log_id: str) -> None:
        """`log_id` names the log that offsets belong to."""
        self._namespace = uuid5(NAMESPACE_URL, f"aquiline:{log_id}")

    def of(self, topic: str, partition: int, offset: int, kind: str) -> UUID:
        """Return uuid5 of log, topic, partition, offset and kind."""
        return uuid5(self._namespace, f"{topic}/{partition}/{offset}/{kind}")


class Observation(NamedTuple):
    """What the policy reads of a folded record, in event time."""

    symbol: str
    interval: str
    ts_event_ms: int
    closed: bool
    slot: int
    """Number of the bar's slot, for rules that fire every n-th."""
    price: float
    """On the book's scale, as are `bar_range` and `atr`."""
    bar_range: float
    atr: float | None
    ts_open_ms: int
    """When the bar opened that the price is of."""


@dataclass(slots=True)
class _Last:
    ts_event_ms: int
    price: float
    ts_open_ms: int


class TriggerPolicy:
    """Decides which triggers a record makes; remembers only what `min_gap_ms` and the move rule need."""

    def __init__(self, settings: FusionSettings) -> None:
        """Take the rules from `settings`."""
        self._settings = settings
        self._intervals = settings.trigger_interval_set
        self._on_closed_bar = settings.trigger_on_closed_bar
        self._deep = bool(settings.deep_every_bars) or settings.deep_on_move_atr is not None
        self._min_gap_ms = settings.min_gap_ms
        self.hooks = Hooks.of(settings.strategy)
        self._last: dict[LaneKey, _Last] = {}
        self.mode: Mode = settings.mode
        """How triggers of bars, moves and vision features ask."""
        self.uses_closed = self._on_closed_bar or self._deep or bool(self.hooks.trigger)
        """Whether a closed bar can make a trigger."""
        self.uses_forming = settings.trigger_on_move_atr is not None
        """Whether a bar that is still forming can make a trigger."""

        self.remembers = settings.min_gap_ms > 0 or settings.trigger_on_vision or self.uses_forming
        """Whether earlier triggers can stop or make a later one. A rebuild need not ask the policy otherwise."""

    def on_market(self, seen: Observation, view: Callable[[], BookView] | None = None) -> list[tuple[str, Mode]]:
        """Return (kind, mode) of each trigger that a folded market record makes; `view` returns what hooks see of a closed bar."""
        if seen.interval not in self._intervals:
            return []
        mode = self.mode
        key = LaneKey(seen.symbol, seen.interval, mode)
        made: list[tuple[str, Mode]] = []
        if seen.closed:
            asks_itself = self._on_closed_bar or (view is not None and bool(self.hooks.trigger))
            if asks_itself and self._gap_kept(key, seen.ts_event_ms):
                if self._on_closed_bar:
                    made.append(("closed_bar", mode))
                elif view is not None and (reason := self._own_reason(view)) is not None:
                    made.append((reason, mode))
            if self._deep and self._wants_deep(seen) and self._gap_kept(LaneKey(seen.symbol, seen.interval, "deep"), seen.ts_event_ms):
                made.append(("deep", "deep"))
        elif self._settings.trigger_on_move_atr is not None and seen.atr:
            last = self._last.get(key)
            moved = last is not None and abs(seen.price - last.price) >= self._settings.trigger_on_move_atr * seen.atr
            if moved and self._gap_kept(key, seen.ts_event_ms):
                made.append(("move", mode))
        for _, asked in made:
            lane = key if asked == mode else LaneKey(seen.symbol, seen.interval, asked)
            self._last[lane] = _Last(seen.ts_event_ms, seen.price, seen.ts_open_ms)
        return made

    def on_vision(self, key: LaneKey, ts_event_ms: int, price: float, ts_open_ms: int, *, completes_wait: bool) -> list[tuple[str, Mode]]:
        """Return the triggers that new vision features make; features that complete a waiting bar make none of their own.

        `price` and `ts_open_ms` are the last closed bar's close and open time.
        """
        if completes_wait or not self._settings.trigger_on_vision or key.interval not in self._intervals:
            return []
        if not self._gap_kept(key, ts_event_ms):
            return []
        self._last[key] = _Last(ts_event_ms, price, ts_open_ms)
        return [("vision", key.mode)]

    def forget(self, symbol: str) -> None:
        """Drop the state of `symbol`."""
        for key in [key for key in self._last if key.symbol == symbol]:
            del self._last[key]

    def rescale(self, symbol: str, effective_ms: int, ratio: float) -> None:
        """Put the remembered prices of bars of `symbol` that opened before `effective_ms` on the scale after a split."""
        for key, last in self._last.items():
            if key.symbol == symbol and last.ts_open_ms < effective_ms:
                last.price /= ratio

    def _own_reason(self, view: Callable[[], BookView]) -> str | None:
        """Return a trigger hook's reason; a hook that fails makes no trigger."""
        try:
            return self.hooks.reason_to_ask(view())
        except HookError as error:
            metrics.HOOKS_FAILED.labels("trigger").inc()
            _log.error("trigger_hook_failed", error=str(error))
            return None

    def _wants_deep(self, seen: Observation) -> bool:
        settings = self._settings
        if settings.deep_every_bars and seen.slot % settings.deep_every_bars == 0:
            return True
        return bool(settings.deep_on_move_atr is not None and seen.atr and seen.bar_range >= settings.deep_on_move_atr * seen.atr)

    def _allowed(self, seen: Observation, mode: Mode) -> bool:
        return self._gap_kept(LaneKey(seen.symbol, seen.interval, mode), seen.ts_event_ms)

    def _gap_kept(self, key: LaneKey, ts_event_ms: int) -> bool:
        last = self._last.get(key)
        return last is None or ts_event_ms - last.ts_event_ms >= self._settings.min_gap_ms
