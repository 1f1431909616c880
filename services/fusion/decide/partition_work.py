"""What happens to a partition's work when the partition comes or goes: restored from its history, or drained and forgotten."""

from __future__ import annotations

from schemas import CancelReason
from services.core.fusion_settings import FusionSettings
from services.core.health import Health
from services.fusion.decide.control import ControlTable
from services.fusion.decide.dispatcher import Dispatcher
from services.fusion.decide.guard import Guard
from services.fusion.deliver.ledger import Ledger
from services.fusion.deliver.partitions import Partitions
from services.fusion.deliver.publisher import Publisher
from services.fusion.observe.spans import TriggerSpans
from services.fusion.prompt.builder import PromptBuilder
from services.fusion.prompt.prewarm import Prewarmer
from services.fusion.state.books import Books
from services.fusion.state.intake import Intake


class PartitionWork:
    """Restores and drains the work of all rooms for `services.fusion.deliver.ownership`."""

    def __init__(
        self,
        settings: FusionSettings,
        health: Health,
        *,
        partitions: Partitions,
        books: Books,
        intake: Intake,
        prompts: PromptBuilder,
        prewarmer: Prewarmer,
        spans: TriggerSpans,
        publisher: Publisher,
        ledger: Ledger,
        control: ControlTable,
        guard: Guard,
        dispatcher: Dispatcher,
    ) -> None:
        """Draining takes at most `fusion.drain_ms`."""
        self._drain_ms = settings.drain_ms
        self._health = health
        self._partitions = partitions
        self._books = books
        self._intake = intake
        self._prompts = prompts
        self._prewarmer = prewarmer
        self._spans = spans
        self._publisher = publisher
        self._ledger = ledger
        self._control = control
        self._guard = guard
        self._dispatcher = dispatcher
        self._restored: dict[int, set[str]] = {}
        """By partition, the symbols of which guard state or open signals were restored, with or without a book."""

    def assigned(self) -> None:
        """Say that the worker is ready once every partition it was assigned is rebuilt: at once when it was assigned none.

        A group with more members than partitions leaves some idle. They stand by, and a roll-out must not wait for them.
        """
        self._health.set("assigned")
        if self._partitions.rebuilt:
            self._health.set("rebuilt")
        else:
            self._health.clear("rebuilt", "books are being rebuilt")

    def restore(self, partition: int) -> None:
        """Restore guard state and open signals from the partition's history, and cancel those that are halted."""
        owned = self._partitions.owned(partition)
        if owned is None:
            return
        history, open_signals = owned.history, self._publisher.open_signals
        self._restored[partition] = {signal.symbol for signal in history.open.values()} | {action.symbol for action in history.actions}
        halted = {signal.symbol: self._control.halted(signal.symbol) for signal in history.open.values()}
        for signal in history.open.values():
            open_signals.restore(signal)
        for action in history.actions:
            self._guard.published(*action)
        history.restored()
        for symbol, why in sorted(halted.items()):
            if why is not None:
                open_signals.cancel(symbol, CancelReason.HALTED, why)

    def taken_over(self) -> None:
        """Say that the worker is ready, and send prefixes ahead, when the last partition has been rebuilt."""
        if self._partitions.rebuilt:
            self._health.set("rebuilt")
            self._prewarmer.warm_all()

    async def give_up(self, partitions: frozenset[int]) -> None:
        """Finish or abort the work of `partitions` within the drain budget, write its outcomes, and forget what is open."""
        self._health.clear("rebuilt", "partitions are moving")
        budget_ms = self._drain_ms
        await self._dispatcher.drain(partitions, finish_ms=budget_ms * 0.7, abort_ms=budget_ms * 0.1)
        # An aborted decision may have handed its signal over: the next owner has to find it in the outputs.
        await self._publisher.flush_signals()
        await self._ledger.written(partitions, int(budget_ms * 0.15))
        await self._publisher.cancels.written(int(budget_ms * 0.05))
        for partition in partitions:
            symbols = self._books.symbols(partition) | self._restored.pop(partition, set())
            self._guard.forget(symbols)
            for symbol in symbols:
                self._publisher.open_signals.forget(symbol)

    def drop_books(self, partition: int) -> None:
        """Forget the books of `partition`, and what was made of them."""
        for symbol in self._intake.start_over(partition):
            self._prompts.forget(symbol)
            self._prewarmer.forget(symbol)
            self._spans.forget(symbol)
