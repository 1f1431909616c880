"""What an input is that workers read as a table: a topic of one partition, read in full by every worker outside its group.

A prompt shows the state of a table as of one offset, so that it stays a function of the log. A package registers an input as an entry
point of the group `aquiline.inputs` (`services.core.table_inputs`), and a strategy's `inputs` names those that are shown.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, TypeVar

from schemas import Action, Message, OffsetRef
from services.core.bus import Record
from services.core.fusion_settings import FusionSettings
from services.fusion.inputs.moment import Moment
from services.fusion.state.book import offset_ref
from services.fusion.state.rejection import Rejection

M = TypeVar("M", bound=Message)
CountTokens = Callable[[str], int]


class TableInput(ABC, Generic[M]):
    """One input's state. What follows from it depends on the records folded alone, in the order of their offsets.

    A method that raises or computes for more than 50 ms costs the record or the decision that it was called for, never the worker.
    """

    message: type[M]
    """A message with a `symbol`, which is the record's key, and `ts_ms`, its event time."""
    compacted: ClassVar[bool] = False
    """Whether the topic keeps the last record of each symbol for ever, or every record for 90 days."""
    heading: ClassVar[str | None] = None
    """The line above the input's lines, in the developer's words, or nothing; one that says that they are data when None."""

    def __init__(self, settings: FusionSettings) -> None:
        """Start empty."""
        self.settings = settings

    def begin(self, end_offset: int) -> None:
        """Take in that the topic has been read up to its end, `end_offset`."""

    @abstractmethod
    def fold(self, message: M, record: Record) -> None:
        """Take a message in."""

    def remove(self, symbol: str, record: Record) -> bool:
        """Take in a record without a value; return False when the input has none."""
        del symbol, record
        return False

    def refused(self, symbol: str) -> None:
        """Take in that a record with the key `symbol` could not be used."""
        del symbol

    def remainder(self, value: bytes) -> bytes | None:
        """Return a message, as JSON, with what counts of a record that broke the contract all the same; None when nothing does."""
        del value
        return None

    @abstractmethod
    def ref(self, symbol: str) -> OffsetRef | None:
        """Return the last record that concerns `symbol`, None when there is none."""

    @abstractmethod
    def lines(self, moment: Moment, tokens: CountTokens) -> Sequence[str]:
        """Return what the tail of a prompt about `moment` says, a line each; `tokens` counts a text's.

        Each is made one line of visible characters that spell no special token, of at most 640. Texts of others belong into `quoted`.
        """

    @classmethod
    def samples(cls, moment: Moment) -> Sequence[M]:
        """Return made-up messages about `moment`, in the order of their records, each with its `ts_ms` as the record's time.

        `aquiline strategy show` prints the lines that follow from them, and `aquiline strategy check` asks for these lines twice.
        """
        del moment
        return ()

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


class LatestBySymbol(TableInput[M]):
    """An input of which the last message of each symbol counts, on a compacted topic. A record without a value says that there is none.

    After a record that cannot be used nothing is known of its symbol: the message before it is out of date, and compaction drops it.
    """

    compacted = True

    def __init__(self, settings: FusionSettings) -> None:
        """Start empty."""
        super().__init__(settings)
        self.latest: dict[str, M] = {}
        """By symbol."""
        self._refs: dict[str, OffsetRef] = {}

    def fold(self, message: M, record: Record) -> None:
        """Take a message in, in place of its symbol's last one."""
        symbol, ts_ms = str(getattr(message, "symbol")), int(getattr(message, "ts_ms"))  # noqa: B009 - an input's message has both
        self.latest[symbol] = message
        self._refs[symbol] = offset_ref(record, ts_ms)

    def remove(self, symbol: str, record: Record) -> bool:
        """Take in that there is none in `symbol` any more."""
        del record
        self._forget(symbol)
        return True

    def refused(self, symbol: str) -> None:
        """Forget what the symbol's last message said."""
        self._forget(symbol)

    def ref(self, symbol: str) -> OffsetRef | None:
        """Return the record of the last message; None without one, as compaction drops the records that say so."""
        return self._refs.get(symbol)

    def _forget(self, symbol: str) -> None:
        self.latest.pop(symbol, None)
        self._refs.pop(symbol, None)
