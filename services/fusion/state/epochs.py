"""Epochs: spans in which a symbol's prompt only grows. Pure functions of bar time.

Slot s of an interval ends in (s * length, (s + 1) * length]; an epoch is K slots, shifted by a hash of the symbol so that symbols do
not switch together. Boundaries count clock time, not bars, so that those inside a closed session share one prefix.
"""

from __future__ import annotations

import hashlib

from schemas import interval_ms


def slot_of(ts_close_ms: int, interval: str) -> int:
    """Return the slot of the bar of `interval` that closes at `ts_close_ms`."""
    return (ts_close_ms - 1) // interval_ms(interval)


class Epochs:
    """Epoch arithmetic of one symbol and interval."""

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
