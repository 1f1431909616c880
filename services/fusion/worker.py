"""The fusion worker: a thin shell of asyncio around the pure core. The poll loop folds and never waits for the model.

poll -> intake -> lanes -> decisions (under permits) -> ledger -> audit acknowledged -> watermark -> commit
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final

import redis.asyncio as redis_async
import structlog

from schemas import CancelReason, Control, HaltState, InstrumentEvent, Outcome, RunMode
from services.core.bus import Bus, Consumer, Position, Producer, Record, TopicPartition
from services.core.clock import Clock
from services.core.decode import Refused
from services.core.health import Health
from services.core.instruments import Instruments
from services.core.lag import LagMonitor
from services.core.settings import Settings, SettingsError
from services.core.tokenizer import Tokenizer
from services.core.topic_admin import check_topics
from services.core.tracing import Tracer
from services.core.zombie_fence import FencedProducer, ZombieFence
from services.fusion.decide.alarm import Alarm
from services.fusion.decide.backlog import Backlog
from services.fusion.decide.control import GLOBAL, ControlTable
from services.fusion.decide.decider import Decider
from services.fusion.decide.decision import Parts
from services.fusion.decide.ending import Ending
from services.fusion.decide.guard import Guard
from services.fusion.decide.lanes import Ended, Lanes
from services.fusion.deliver.accounts import Accounts, RecordCounter
from services.fusion.deliver.ledger import Ledger
from services.fusion.deliver.overdue import Overdue
from services.fusion.deliver.ownership import Ownership
from services.fusion.deliver.publisher import Publisher
from services.fusion.deliver.recovery import Recovery
from services.fusion.deliver.skew import SkewMeter
from services.fusion.observe.gauges import Gauges
from services.fusion.observe.spans import TriggerSpans
from services.fusion.prompt.builder import PromptBuilder, fingerprint
from services.fusion.prompt.capacity import CapacityWatch
from services.fusion.prompt.prewarm import Prewarmer
from services.fusion.prompt.store import PrefixStore
from services.fusion.state.books import Books
from services.fusion.state.intake import Intake
from services.fusion.state.triggers import Trigger, TriggerPolicy
from services.inference.engine import Engine, EngineError

_POLL_MS: Final = 100
_BATCH: Final = 500
_DOWN: Final = frozenset({"engine_unreachable", "engine_broke", "engine_open"})

_PLACE: Final = itemgetter(0, 1)
"""A record's topic and partition, its first two fields: by name they take twice as long."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Around:
    """What a worker is given: everything outside it. It closes engines and Redis when it ends, and leaves the bus open."""

    bus: Bus
    settings: Settings
    clock: Clock
    health: Health
    engine: Engine
    fallback: Engine | None
    tokenizer: Tokenizer
    redis: redis_async.Redis | None


class FusionWorker:
    """One member of the fusion group. `run` it once; `accounts` may be read at any time."""

    def __init__(self, around: Around) -> None:
        """Make a worker; raise ValueError when the tokenizer lacks a token of the chat template."""
        bus, settings, clock = around.bus, around.settings, around.clock
        self._around = around
        self._bus, self._settings, self._clock, self._health = bus, settings, clock, around.health
        self._health.require("control", "assigned", "rebuilt")
        fusion, template = settings.fusion, settings.engine.chat_template
        self.accounts = Accounts()
        self._counter = RecordCounter(self.accounts, fusion)
        self._instruments = Instruments(bus, clock, settings.run_mode, f"{settings.fusion_group}-instruments")
        self._instruments.on_split = self._on_split
        self._control = ControlTable(bus, clock, settings.run_mode, f"{settings.fusion_group}-control")
        self._books = Books(fusion, self._instruments)
        self._policy = TriggerPolicy(fusion)
        self._intake = Intake(settings, clock, self._books, self._policy)
        self._lanes = Lanes({"fast": fusion.permits, "deep": fusion.deep_permits}, fusion.max_staleness_ms)
        self._backlog = Backlog(fusion, self._lanes, around.health)
        self._guard = Guard(fusion)
        self._skew = SkewMeter()
        self._overdue = Overdue(fusion)
        self._fence = ZombieFence.of(settings.bus)
        self._tracer = Tracer.of(settings, "fusion")
        self._spans = TriggerSpans(self._tracer, (self._intake.market_topic, self._intake.vision_topic))
        store = PrefixStore(around.redis, settings.redis, clock, fingerprint(around.tokenizer, template))
        self._store = store
        self._prompts = PromptBuilder(fusion, around.tokenizer, template, store, settings.redis.local_bytes)
        self.prewarmer = Prewarmer(settings, clock, around.engine, self._prompts, self._books)
        self._stopping = asyncio.Event()
        self._opened = AsyncExitStack()
        self._alarm = Alarm(clock, self.dispatch)
        self._engine_was_down = False
        self._capacity = CapacityWatch(fusion.window_bars, prewarm=fusion.prewarm)
        self._kv_tokens: int | None = None
        self._consumer: Consumer
        self._signals: Producer
        self._others: Producer
        self._publisher: Publisher
        self._ledger: Ledger
        self._decider: Decider
        self.ownership: Ownership

    def stop(self) -> None:
        """Have `run` start nothing new, finish or give up what runs within `fusion.drain_ms`, commit and return."""
        self._stopping.set()

    async def look_up(self) -> None:
        """Read on in the tables to where they end now, for whoever moves the clock: it follows them in real time.

        After a leap of a virtual clock `control` would otherwise look as if it had been unreadable all along.
        """
        await self._control.catch_up()
        await self._instruments.catch_up()

    async def settle(self) -> None:
        """Return once all that was taken in is decided and acknowledged, or waits for a time that has not come."""
        self.dispatch()
        while pending := [*self._decider.running, *self._ledger.writing, *self._publisher.cancelling]:
            await asyncio.wait(pending)

    async def run(self) -> None:
        """Work until `stop`; raise BusError, SettingsError or PoisonedStreamError when it cannot go on."""
        try:
            await self._start()
            gauges = Gauges(
                self._clock,
                self._settings.run_mode,
                self._instruments,
                self._control,
                self._lanes,
                self._overdue,
                self.ownership.watermarks,
            )
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(work, name=name)
                    for name, work in (
                        ("control", self._control.follow()),
                        ("instruments", self._instruments.follow()),
                        ("prewarm", self.prewarmer.run()),
                        ("housekeeping", self._keep_house()),
                        ("takeover", self.ownership.run()),
                        ("fence", self._fence.keep()),
                        ("gauges", gauges.keep()),
                        ("lag", LagMonitor(self._bus, f"{self._settings.fusion_group}-lag", gauges.done).run()),
                        ("engine", self._watch_engine()),
                    )
                ]
                try:
                    await self._poll()
                finally:
                    await self._consumer.close()
                    for helper in helpers:
                        helper.cancel()
        finally:
            await self._opened.aclose()
            self._counter.flush()
            _log.info("fusion_done", **self.accounts.summary())

    async def _start(self) -> None:
        fusion, clock, opened = self._settings.fusion, self._clock, self._opened
        group = self._settings.fusion_group
        for engine in (self._around.engine, self._around.fallback):
            if engine is not None:
                opened.push_async_callback(engine.close)
        opened.push_async_callback(self._store.close)
        if self._tracer is not None:
            opened.push_async_callback(self._tracer.close)
        admin = await self._bus.admin()
        try:
            partitions = await check_topics(admin, self._settings.run_mode)
        finally:
            await admin.close()
        await self._refuse_simulator()
        opened.push_async_callback(self._instruments.close)
        await self._instruments.start()
        await self._instruments.load_calendars()
        opened.push_async_callback(self._control.close)
        await self._control.start()
        self._health.set("control")
        # Its own producer, with a timeout below the delivery reserve: a stale signal cannot leave from its buffer.
        self._signals = FencedProducer(
            await self._bus.producer(client_id=f"{group}-signals", delivery_timeout_ms=fusion.producer_timeout_ms), self._fence
        )
        opened.push_async_callback(self._signals.close)
        self._others = FencedProducer(await self._bus.producer(client_id=group), self._fence)
        opened.push_async_callback(self._others.close)
        self._publisher = Publisher(
            self._signals,
            self._others,
            clock=clock,
            run_mode=self._settings.run_mode,
            skew=self._skew,
            on_position=self._on_position,
        )
        opened.push_async_callback(self._publisher.close)
        self._control.on_change = self._on_control
        self._ledger = Ledger(
            self._publisher,
            self.accounts,
            self._overdue,
            self._spans,
            clock,
            run_mode=self._settings.run_mode,
            config_version=self._prompts.version,
        )
        opened.push_async_callback(self._ledger.close)
        opened.callback(self._alarm.stop)
        self._consumer = await self._bus.consumer(group=group, client_id=group, instance_id=self._settings.bus.instance_id)
        self.ownership = Ownership(
            self._consumer, Recovery(self._bus, self._settings, clock, self._intake, self._books), self._intake, self, partitions
        )
        parts = Parts(
            self._settings,
            clock,
            self._prompts,
            self._around.engine,
            self._around.fallback,
            self._guard,
            self._control,
            self._publisher,
            self._skew,
        )
        self._decider = Decider(
            parts,
            books=self._books,
            lanes=self._lanes,
            ledger=self._ledger,
            ownership=self.ownership,
            spans=self._spans,
            decided=self._decided,
        )
        opened.push_async_callback(self._consumer.close)
        await self._consumer.start([self._intake.market_topic, self._intake.vision_topic], self.ownership)

    async def _refuse_simulator(self) -> None:
        """Look at the engine; in run mode `live`, refuse the simulator. An engine that does not answer yet is no reason to wait."""
        try:
            info = await self._around.engine.info()
        except EngineError as error:
            _log.warning("engine_not_answering", reason=error.reason, detail=error.detail)
            return
        if info.source == "simulator" and self._settings.run_mode.value == "live":
            raise SettingsError("run_mode = 'live' refuses the simulator, which answers at engine.urls; name a real engine there")
        self._kv_tokens = info.kv_capacity_tokens
        _log.info("engine", name=info.name, source=info.source, model=info.model, kv_tokens=info.kv_capacity_tokens)

    async def _watch_engine(self) -> None:
        # A replay's clock leaps from record to record: an engine would be idle between any two of them.
        if self._settings.run_mode is not RunMode.REPLAY:
            await self._around.engine.watch()

    # --- Folding -------------------------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        while not self._stopping.is_set():
            records = await self._consumer.poll(timeout_ms=_POLL_MS, max_records=_BATCH)
            self._take(records)
            self.ownership.polled(empty=not records)
            self._bound_backlog()
            self.dispatch()
            # A batch takes some milliseconds; whoever waits for the loop gets it between two, a decision that begins before all else.
            await asyncio.sleep(0)
            self._counter.flush()
            self._health.progress()

    def _take(self, records: list[Record]) -> None:
        for (topic, partition), batch in groupby(records, _PLACE):
            watermark = self.ownership.reading(TopicPartition(topic, partition))
            if watermark is None:
                continue  # taken away between fetch and here; whoever owns it reads it again
            folded, heeds_records = 0, self._spans.heeds_records
            for record in batch:
                watermark.seen(record.offset)
                taken = self._intake.take(record, self)
                if taken == "folded":
                    folded += 1
                    if heeds_records and record.headers:
                        self._spans.folded(record)
                elif isinstance(taken, Refused):
                    self._ledger.send_dead_letter(record, taken, watermark)
                    self._counter.dead_letter(topic, taken.reason)
                else:
                    self._counter.count(topic, taken)
            self._counter.count(topic, "folded", folded)

    def trigger(self, trigger: Trigger, wait_until_ms: int, record: Record) -> None:
        """Put a trigger in line, unless an earlier life of its partition has ended it."""
        owned = self.ownership.owned(record.partition)
        watermark = self.ownership.watermarks.get(TopicPartition(record.topic, record.partition))
        if owned is None or watermark is None or trigger.trigger_id in owned.known.ended:
            return
        self._ledger.open(trigger, watermark, record)
        signal = owned.known.signals.get(trigger.trigger_id)
        if signal is not None:
            # Published before a crash that came ahead of its audit record: that is its outcome, and asking again could change it.
            detail = "published before a restart"
            self._ledger.conclude(trigger, Ending(Outcome.PUBLISHED, detail=detail, as_of=signal.as_of, signal=signal))
            return
        ended = self._lanes.offer(trigger, self._clock.now_ms(), wait_until_ms)
        if ended is not None:
            self._end(ended)

    def vision_arrived(self, symbol: str, interval: str, window_end_ms: int) -> bool:
        """Let a waiting trigger go on; return True when one was waiting for this window."""
        return self._lanes.complete_wait(symbol, interval, window_end_ms, self._clock.now_ms())

    def bars_changed(self, symbol: str, reason: CancelReason) -> None:
        """Cancel what rested on bars that are others now, and send the prefix that shows them anew before it is asked for."""
        self.prewarmer.warm_current([symbol])
        self._publisher.cancel_open(symbol, reason, "bars that it rested on have been revised or rescaled")

    def _bound_backlog(self) -> None:
        unfinished = self.ownership.watermarks.unfinished
        for ended in self._backlog.overdue(unfinished, len(self._ledger.writing)):
            self._end(ended)
        self._backlog.pause_or_resume(unfinished, self._consumer, self.ownership)

    # --- Deciding ------------------------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Start every trigger whose turn has come."""
        if self._stopping.is_set() or not self.ownership.caught_up:
            return
        started, ended = self._lanes.start_ready(self._clock.now_ms())
        for late in ended:
            self._end(late)
        for one in started:
            self._decider.start(one)
        self._alarm.set(self._lanes.next_wake_ms())

    def _decided(self, trigger: Trigger, ending: Ending) -> None:
        """Send prefixes ahead, note for whoever restarts the engine what it holds, and start whose turn has come."""
        if ending.reason in _DOWN:
            self._engine_was_down = True
        elif ending.usage is not None and ending.prompt is not None and ending.engine is not None:
            self._kv_tokens = ending.engine.kv_capacity_tokens
            prefix = ending.prompt.prefix
            self._store.used(ending.engine.name, prefix.blocks[-1].key, prefix.recipe)
            if self._engine_was_down:
                self._engine_was_down = False
                self.prewarmer.warm_current(self._prompts.hottest())
            self.prewarmer.after_decision(trigger.lane.symbol, trigger.lane.interval)
        self.dispatch()

    def _end(self, ended: Ended) -> None:
        self._ledger.conclude(ended.trigger, Ending(Outcome(ended.outcome), ended.reason))

    # --- Taking over and handing back ------------------------------------------------------------------------------------------

    def taken_over(self, partition: int) -> None:
        """Restore what the guard and the publisher remember of a partition, and warm the engine for it."""
        owned = self.ownership.owned(partition)
        if owned is None:
            return
        for signal in owned.known.signals.values():
            if signal.signal_id not in owned.known.cancelled:
                self._publisher.restore(signal)
            self._guard.published(signal.symbol, signal.action, signal.as_of.market.ts_event_ms, signal.ts_decided_ms)
        self._health.set("assigned")
        if self.ownership.rebuilt:
            self._health.set("rebuilt")
        for symbol in sorted(self._books.symbols(partition)):
            why = self._control.halted(symbol)
            if why is not None:
                self._publisher.cancel_open(symbol, CancelReason.HALTED, why)
        self.prewarmer.warm_current(sorted(self._books.symbols(partition)))

    async def hand_back(self, partitions: frozenset[int]) -> None:
        """Finish or give up the work of `partitions` within the drain budget, commit it, and forget them."""
        self._health.clear("rebuilt", "partitions are moving")
        budget_ms = self._settings.fusion.drain_ms
        for trigger in self._lanes.drop(lambda trigger: trigger.origin.partition in partitions):
            self._ledger.abandon(trigger)
        await self._decider.give_up(partitions, after_ms=budget_ms * 0.7, within_ms=budget_ms * 0.1)
        # A decision that was given up may have handed its signal over: whoever reads the outputs next has to find it there.
        await self._publisher.landed()
        await self._ledger.written(partitions, int(budget_ms * 0.15))
        await self._publisher.cancelled_all(int(budget_ms * 0.05))
        for partition in partitions:
            for symbol in self._books.drop(partition):
                self._policy.forget(symbol)
                self._guard.forget(symbol)
                self._publisher.forget(symbol)
                self._prompts.forget(symbol)
                self.prewarmer.forget(symbol)
                self._spans.forget(symbol)

    # --- What comes from outside the inputs --------------------------------------------------------------------------------------

    def _on_position(self, position: Position) -> None:
        self.ownership.acknowledged(position, (self._publisher.signals_topic, self._publisher.audit_topic))

    def _on_control(self, control: Control) -> None:
        if control.state is HaltState.HALTED:
            symbol = None if control.scope == GLOBAL else control.scope
            self._publisher.cancel_open(symbol, CancelReason.HALTED, control.reason)

    def _on_split(self, event: InstrumentEvent) -> None:
        book = self._books.get(event.symbol)
        if book is not None and book.add_split(event):
            self._policy.rescale(event.symbol, event.ratio)
            self.prewarmer.warm_current([event.symbol])
            self._publisher.cancel_open(event.symbol, CancelReason.SPLIT, f"split {event.ratio}:1 at {event.effective_ms}")

    async def _keep_house(self) -> None:
        """Commit, and hold what the engine must keep against what it can, for ever."""
        while True:
            await asyncio.sleep(self._settings.fusion.commit_interval_ms / 1000)
            await self.ownership.commit()
            self._capacity.check(self._prompts.live_tokens, self._kv_tokens)
