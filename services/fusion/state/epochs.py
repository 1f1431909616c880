"""Epochs: spans in which a symbol's prompt only grows, what each freezes, and what starts one: its boundary, or bars that changed.

Slot s of an interval ends in (s * length, (s + 1) * length]; an epoch is K slots, shifted by a hash of the symbol so that symbols do
not switch together. Boundaries count clock time, not bars, so that those inside a closed session share one prefix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from schemas import MarketFeatures, interval_ms
from services.core.fusion_settings import FusionSettings
from services.fusion.state.bars import Bars

_RANGE_BARS: Final = 32
"""Bars whose median range says how many digits the lines of an interval need."""


def slot_of(ts_close_ms: int, interval: str) -> int:
    """Return the slot of the bar of `interval` that closes at `ts_close_ms`."""
    return (ts_close_ms - 1) // interval_ms(interval)


class EpochBoundaries:
    """Where the epochs of one symbol and interval begin. Pure arithmetic of bar time."""

    __slots__ = ("length_ms", "shift", "slots")

    def __init__(self, symbol: str, interval: str, slots: int) -> None:
        """`slots` is K, the length of an epoch in slots."""
        self.length_ms = interval_ms(interval)
        self.slots = slots
        self.shift = int.from_bytes(hashlib.blake2b(symbol.encode(), digest_size=8).digest(), "big") % slots

    def slot(self, ts_close_ms: int) -> int:
        """Return the slot of the bar that closes at `ts_close_ms`."""
        return (ts_close_ms - 1) // self.length_ms

    def index(self, ts_close_ms: int) -> int:
        """Return the epoch of the bar that closes at `ts_close_ms`."""
        return (self.slot(ts_close_ms) + self.shift) // self.slots

    def start_ms(self, index: int) -> int:
        """Return the boundary before epoch `index`: bars that close after it belong to the epoch or a later one."""
        return (index * self.slots - self.shift) * self.length_ms


class SlowBars(NamedTuple):
    """A slower interval as a prompt freezes it: the bars that had closed by then."""

    interval: str
    last_close_ms: int
    """`ts_close_ms` of the newest closed bar, 0 when there is none."""
    range_bp: float | None


class Frozen(NamedTuple):
    """What the epochs of a trigger interval freeze."""

    range_bp: float | None
    """Median range of the interval's bars, in basis points of the close; None while it is not known."""
    slow: tuple[SlowBars, ...]
    """The slower intervals, the slowest first."""


class SlowBar(NamedTuple):
    """A closed bar of a slower interval: the one at index `at`."""

    interval: str
    at: int


@dataclass(slots=True)
class _EpochState:
    """What is frozen for the epochs of one trigger interval."""

    until_ms: int
    """Where the epoch of its last closed bar ends."""
    current: Frozen
    """For this epoch: the state when the epoch before it was entered."""
    entered: Frozen
    """The state when this epoch was entered: for the next one."""


class Epochs:
    """The epochs of one book, and what they freeze of its bars.

    An epoch freezes the slower bars as they were when the one before it that had bars began, so that its prefix is known that much
    ahead and can be pre-warmed, over a closed session too. What closed since follows the fast bars. What is frozen are references to
    bars: a bar that is revised or rescaled shows its new values, whenever that was learned.
    """

    def __init__(self, symbol: str, settings: FusionSettings, bars: Mapping[str, Bars]) -> None:
        """`bars` are those of the book, by interval; this class only reads them."""
        self.version = 0
        """Grows with each `start_anew`; local to this process."""
        self._bars = bars
        self._boundaries = {name: EpochBoundaries(symbol, name, settings.epoch_slots) for name in settings.trigger_interval_set}
        self._states: dict[str, _EpochState] = {}
        intervals = settings.intervals
        self._slower = {name: [slow for slow in reversed(intervals) if interval_ms(slow) > interval_ms(name)] for name in self._boundaries}

    def boundaries(self, interval: str) -> EpochBoundaries:
        """Return where the epochs of a trigger interval begin."""
        return self._boundaries[interval]

    def start_anew(self) -> None:
        """Start every interval's epoch anew, since bars that prompts have shown are changed: prefixes are laid out again.

        What is frozen stays, by reference.
        """
        self.version += 1

    def enter(self, bar: MarketFeatures) -> None:
        """Freeze the slower bars when `bar`, which is about to be appended, is the first of a new epoch of a trigger interval."""
        interval, ts_close_ms = bar.interval, bar.ts_close_ms
        held = self._states.get(interval)
        if held is not None and ts_close_ms <= held.until_ms:
            return
        boundaries = self._boundaries.get(interval)
        if boundaries is None:
            return
        until_ms = boundaries.start_ms(boundaries.index(ts_close_ms) + 1)
        now = self.now(interval)
        if held is None:
            now = now._replace(range_bp=10_000 * (bar.high - bar.low) / bar.close)
            self._states[interval] = _EpochState(until_ms, now, now)
        else:
            held.current, held.entered, held.until_ms = held.entered, now, until_ms

    def frozen(self, interval: str) -> Frozen:
        """Return what the prompts of `interval`'s current epoch freeze."""
        held = self._states.get(interval)
        return held.current if held else self.now(interval)

    def entered(self, interval: str) -> Frozen:
        """Return the state when `interval`'s current epoch was entered, which the next epoch freezes."""
        held = self._states.get(interval)
        return held.entered if held else self.now(interval)

    def now(self, interval: str) -> Frozen:
        """Return what a prompt of `interval` would freeze now."""
        slow = tuple(SlowBars(name, self._bars[name].last_close_ms, self._range_bp(name)) for name in self._slower[interval])
        return Frozen(self._range_bp(interval), slow)

    def closed_between(self, since: Frozen, until: Frozen | None = None) -> list[SlowBar]:
        """Return the slower bars that closed after `since` and not after `until` (None: all), in the order in which they were folded."""
        found: list[tuple[int, SlowBar]] = []
        for at, frozen in enumerate(since.slow):
            bars = self._bars[frozen.interval]
            stop = len(bars) if until is None else bars.first_after(until.slow[at].last_close_ms)
            first = bars.first_after(frozen.last_close_ms)
            found += [(bars.sequence[index], SlowBar(frozen.interval, index)) for index in range(first, stop)]
        return [bar for _, bar in sorted(found)]

    def _range_bp(self, interval: str) -> float | None:
        return self._bars[interval].median_range_bp(_RANGE_BARS)
