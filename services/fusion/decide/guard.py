"""The guard: rules that stop a decision, each by its name. Pure: times and states are handed in."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from schemas import Action, RunMode
from services.core import metrics
from services.core.fusion_settings import FusionSettings
from services.fusion.state.book import Book
from services.fusion.state.rejection import Rejection
from services.inference.engine import EngineInfo
from services.strategy.hooks import BookView, HookError, Hooks

_MINUTE_MS: Final = 60_000
_ENTRIES: Final = frozenset({Action.BUY, Action.SELL})


def forbidden_engine(run_mode: RunMode, engine: EngineInfo) -> str | None:
    """Return why answers of `engine` may not be acted on in `run_mode`, None when they may: live never acts on the simulator."""
    if run_mode is RunMode.LIVE and engine.source == "simulator":
        return f"run_mode = 'live' refuses the simulator, which answers as {engine.name}; name a real engine in engine.urls"
    return None


def own_rejection(hooks: Hooks, view: BookView | None, action: Action) -> Rejection | None:
    """Return why a hook of the strategy stops `action`; a hook that fails stops it too. Only entries are stopped."""
    if view is None or action not in _ENTRIES:
        return None
    try:
        reason = hooks.reason_to_block(view, "buy" if action is Action.BUY else "sell")
    except HookError as error:
        metrics.HOOKS_FAILED.labels("guard").inc()
        return Rejection("hook_failed", str(error))
    return None if reason is None else Rejection("own_guard", reason)


@dataclass(slots=True)
class _Trades:
    """What the guard remembers of a symbol."""

    last_entry_ms: int | None = None
    side: Action | None = None
    flips: deque[int] = field(default_factory=deque)


class Guard:
    """Holds what its rules remember: entries and changes of side by symbol in event time, published signals by worker's time."""

    def __init__(self, settings: FusionSettings) -> None:
        """Take the limits from `settings`."""
        self._settings = settings
        self._trades: dict[str, _Trades] = {}
        self._published: deque[tuple[int, str]] = deque()
        """When signals were published, and their symbols, the oldest first."""

    def on_book(self, book: Book, interval: str, event_lag_ms: int, accepted_ms: int = 0) -> Rejection | None:
        """Return why the book is not fit to ask about; `event_lag_ms` is the last record's time less its bar's end.

        An operator accepted the jumps of bars that opened before `accepted_ms`; 0 when none did.
        """
        settings, bars = self._settings, book.bars[interval]
        if len(bars) < settings.min_bars:
            return Rejection("min_bars", f"{len(bars)} closed bars of {interval}; at least {settings.min_bars} are needed")
        expiry_ms = book.instrument.expiry_ms
        if expiry_ms is not None and bars.last_close_ms >= expiry_ms:
            return Rejection("expired", f"the last bar closed at {bars.last_close_ms}, and the instrument expired at {expiry_ms}")
        return self._on_missing_bars(book, interval) or self._on_last_bar(book, interval, event_lag_ms, accepted_ms)

    def _on_last_bar(self, book: Book, interval: str, event_lag_ms: int, accepted_ms: int) -> Rejection | None:
        settings, bars = self._settings, book.bars[interval]
        suspicion = book.suspected_split(interval, settings.max_jump, accepted_ms)
        if suspicion is not None:
            mend = f"publish the split, correct the bars, or accept the price with `aquiline resume {book.instrument.symbol}`"
            return Rejection("suspected_split", f"{suspicion}: {mend}")
        if settings.max_event_lag_ms is not None and event_lag_ms > settings.max_event_lag_ms:
            return Rejection("event_lag", f"the bar came {event_lag_ms} ms after its end; at most {settings.max_event_lag_ms} are allowed")
        if not bars.features.get("atr", 0.0) > 0:
            return Rejection("no_atr", f"the last bar of {interval} carries no positive feature 'atr', in which prices are measured")
        return None

    def _on_missing_bars(self, book: Book, interval: str) -> Rejection | None:
        settings, bars, sparse = self._settings, book.bars[interval], book.instrument.sparse
        window = settings.window_bars
        limit = settings.max_sparse_gap_bars if sparse else settings.max_gap_bars
        longest = bars.longest_gap_in(window)
        if longest > limit:
            return Rejection("max_gap_bars", f"{longest} bars of {interval} in a row are missing in the window; at most {limit} may be")
        missing, allowed = bars.missing_in(window), max(limit, int(settings.max_missing_share * window))
        if not sparse and missing > allowed:
            return Rejection("max_missing_share", f"{missing} bars of {interval} are missing in the window; at most {allowed} may be")
        return None

    def on_clock(self, skew_ms: int) -> Rejection | None:
        """Return why the clocks forbid a signal; `skew_ms` is the worker's less the broker's."""
        if abs(skew_ms) > self._settings.max_skew_ms:
            return Rejection(
                "clock_skew",
                f"worker's and broker's clock differ by {skew_ms} ms; at most {self._settings.max_skew_ms} are allowed",
            )
        return None

    def on_action(self, symbol: str, action: Action, ts_event_ms: int, now_ms: int) -> Rejection | None:
        """Return why `action` on `symbol` may not be published now. Only entries are limited: an exit is never held back."""
        while self._published and self._published[0][0] <= now_ms - _MINUTE_MS:
            self._published.popleft()
        if action not in _ENTRIES:
            return None
        settings = self._settings
        if len(self._published) >= settings.rate_limit_per_min:
            return Rejection("rate_limit", f"{len(self._published)} signals in the last minute; at most {settings.rate_limit_per_min}")
        trades = self._trades.get(symbol)
        if trades is None:
            return None
        since_ms = None if trades.last_entry_ms is None else ts_event_ms - trades.last_entry_ms
        if settings.cool_down_ms and since_ms is not None and since_ms < settings.cool_down_ms:
            return Rejection("cool_down", f"the last entry was {since_ms} ms ago; at least {settings.cool_down_ms} must pass")
        flips = sum(at > ts_event_ms - settings.flip_flop_window_ms for at in trades.flips)
        if settings.flip_flop_limit and trades.side not in {None, action} and flips >= settings.flip_flop_limit:
            return Rejection(
                "flip_flop", f"{flips} changes of side in {settings.flip_flop_window_ms} ms; at most {settings.flip_flop_limit}"
            )
        return None

    def published(self, symbol: str, action: Action, ts_event_ms: int, now_ms: int) -> None:
        """Remember a published signal, also one of an earlier life of this worker."""
        insort(self._published, (now_ms, symbol))  # those of an earlier life come late
        if action not in _ENTRIES:
            return
        trades = self._trades.setdefault(symbol, _Trades())
        if trades.side not in {None, action}:
            trades.flips.append(ts_event_ms)
            while trades.flips[0] <= ts_event_ms - self._settings.flip_flop_window_ms:
                trades.flips.popleft()
        trades.side = action
        trades.last_entry_ms = ts_event_ms

    def forget(self, symbols: Collection[str]) -> None:
        """Drop what is remembered of `symbols`: whoever owns them next reads it back."""
        for symbol in symbols:
            self._trades.pop(symbol, None)
        self._published = deque(one for one in self._published if one[1] not in symbols)
