"""What an input is that workers read as a table: a topic of one partition, read in full by every worker outside its group.

A prompt shows the state of a table as of one offset, so that it stays a function of the log.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

from schemas import Action, Message, OffsetRef, Topic
from services.core.bus import Record
from services.core.fusion_settings import FusionSettings
from services.fusion.state.book import Book
from services.fusion.state.rejection import Rejection

M = TypeVar("M", bound=Message)
CountTokens = Callable[[str], int]


class TableInput(ABC, Generic[M]):
    """One input's state. What follows from it depends on the records folded alone, in the order of their offsets."""

    name: ClassVar[str]
    """In an as-of (`AsOf.tables`)."""
    topic: ClassVar[Topic]
    model: type[M]

    def __init__(self, settings: FusionSettings) -> None:
        """Start empty."""
        self.settings = settings

    def begin(self, end_offset: int) -> None:
        """Take in that the topic has been read up to its end, `end_offset`."""

    @abstractmethod
    def event_ms(self, message: M) -> int:
        """Return the event time of a record."""

    @abstractmethod
    def fold(self, message: M, record: Record) -> None:
        """Take a message in."""

    def remove(self, symbol: str, record: Record) -> bool:
        """Take in a record without a value; return False when the input has none."""
        del symbol, record
        return False

    @abstractmethod
    def ref(self, symbol: str) -> OffsetRef | None:
        """Return the last record that concerns `symbol`, None when there is none."""

    @abstractmethod
    def text(self, book: Book, interval: str, tokens: CountTokens) -> str:
        """Return what the tail of a prompt on the last bar of `interval` says: whole lines, or nothing. `tokens` counts a text's."""

    def rejection(self, symbol: str, now_ms: int) -> Rejection | None:
        """Return why nothing is decided on `symbol` now, None when the input says nothing against it."""
        del symbol, now_ms
        return None

    def rejection_of(self, symbol: str, action: Action) -> Rejection | None:
        """Return why `action` is not published, None when the input says nothing against it."""
        del symbol, action
        return None

    def next_rejection_ms(self, symbol: str, now_ms: int) -> int | None:
        """Return when decisions on `symbol` will be stopped next, None when nothing is known to stop them."""
        del symbol, now_ms
        return None
