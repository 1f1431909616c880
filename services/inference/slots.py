"""Which of llama.cpp's slots serves a prompt: each slot keeps the KV cache of one prompt, so a symbol goes back to its own.

A pure core: it mirrors what the server holds from what it was sent. The next epoch's prefix has little in common with the current
one, so it gets a second slot; a slot that holds a symbol's latest prompt is never taken for a prefix that is sent ahead.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from services.inference.engine import TokenIds


@dataclass(slots=True)
class _Slot:
    owner: str | None = None
    ids: TokenIds = field(default_factory=lambda: np.zeros(0, np.int32))
    used: int = 0
    """A serial number: the higher, the later."""
    calls: int = 0
    """Calls under way."""


class Slots:
    """The slots of one server. The last of several is kept for prompts without an owner, such as probes."""

    def __init__(self, count: int) -> None:
        """Take the number of slots; raise ValueError unless it is positive."""
        if count < 1:
            raise ValueError(f"a server needs at least one slot, not {count}")
        self._slots = [_Slot() for _ in range(count)]
        self._serial = 0

    @property
    def count(self) -> int:
        """Return how many slots there are."""
        return len(self._slots)

    def take(self, owner: str, ids: TokenIds, *, ahead: bool = False) -> int | None:
        """Return the slot for `ids`, a prompt of `owner`; hand it back through `release`.

        None when `ids` are sent ahead and every slot holds somebody's latest prompt.
        """
        number = self._choose(owner, ids, ahead=ahead)
        if number is not None:
            slot = self._slots[number]
            self._serial += 1
            slot.owner, slot.ids, slot.used = owner, ids, self._serial
            slot.calls += 1
        return number

    def release(self, number: int) -> None:
        """End a call on a slot."""
        self._slots[number].calls -= 1

    def _choose(self, owner: str, ids: TokenIds, *, ahead: bool) -> int | None:
        last = len(self._slots) - 1
        if not owner or not last:
            return last
        numbers = range(last)
        own = [number for number in numbers if self._slots[number].owner == owner]
        if own:
            best = max(own, key=lambda number: (_common(self._slots[number].ids, ids), self._slots[number].used))
            held = self._slots[best].ids
            # What shares only the head of a held prompt would cost that prompt its cache.
            if 2 * _common(held, ids) >= held.size:
                return best
        unused = [number for number in numbers if self._slots[number].owner is None]
        if unused:
            return unused[0]
        latest = {slot.owner: number for number, slot in sorted(enumerate(self._slots[:last]), key=lambda item: item[1].used)}
        spare = [number for number in numbers if latest[self._slots[number].owner] != number]
        if ahead and not spare:
            return None
        return min(spare or numbers, key=lambda number: (self._slots[number].calls > 0, self._slots[number].used))


def _common(held: TokenIds, ids: TokenIds) -> int:
    """Return how many ids both start with."""
    length = min(held.size, ids.size)
    differing = np.flatnonzero(held[:length] != ids[:length])
    return int(differing[0]) if differing.size else length
