"""What the console holds of the topics: a map that evicts its oldest values beyond a number of bytes, and the maps made of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedMap(Generic[K, V]):
    """A map of at most `max_bytes`, in the order in which keys first came."""

    def __init__(self, max_bytes: int, size: Callable[[V], int], on_evict: Callable[[K, V], None] | None = None) -> None:
        """`size` gives the bytes that an entry takes; `on_evict` is called with what is evicted."""
        self._max_bytes = max_bytes
        self._size = size
        self._on_evict = on_evict
        self._values: OrderedDict[K, V] = OrderedDict()
        self.held_bytes = 0

    def put(self, key: K, value: V) -> None:
        """Set a value, and evict the oldest ones that no longer fit."""
        before = self._values.get(key)
        if before is not None:
            self.held_bytes -= self._size(before)
        self._values[key] = value
        self.held_bytes += self._size(value)
        while self.held_bytes > self._max_bytes and len(self._values) > 1:
            oldest, evicted = self._values.popitem(last=False)
            self.held_bytes -= self._size(evicted)
            if self._on_evict is not None:
                self._on_evict(oldest, evicted)

    def get(self, key: K) -> V | None:
        """Return a value, None when it is not held."""
        return self._values.get(key)

    def newest_first(self) -> Iterator[V]:
        """Yield the values from the newest key to the oldest."""
        return iter(reversed(self._values.values()))

    def values(self) -> Iterator[V]:
        """Yield the values from the oldest key to the newest."""
        return iter(self._values.values())

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)
