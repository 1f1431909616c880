"""The scorer: a member of its group that hands records to the judges and publishes their outcomes.

What one record brings about becomes durable in this order, each step acknowledged before the next: (1) the outcomes; (2) the judge's
state; (3) the commit, which only passes records whose state is acknowledged. After a crash between any two the same record is read
again, by a judge in the state before it, and the same outcomes are published once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter, deque
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import structlog

from schemas import SignalOutcome, Topic, topic_name
from services.core.bus import Bus, BusError, Producer
from services.core.bus.decoded import RecordDecoders
from services.core.clock import Clock
from services.core.dead_letters import send_dead_letter
from services.core.decode import accepted_modes
from services.core.errors import ServiceError
from services.core.folding.candles import CandleRules
from services.core.folding.disposition import Disposition
from services.core.health import Health
from services.core.instruments import Instruments
from services.core.lag import LagMonitor
from services.core.lifecycle import EXIT_FAILED, explain
from services.core.metrics import (
    DEAD_LETTERS,
    OPEN_SIGNALS,
    RECORDS,
    SIGNAL_BRIER,
    SIGNAL_GAIN,
    SIGNAL_LOG_LOSS,
    SIGNAL_LOSS,
    SIGNAL_OUTCOMES,
    SIGNAL_RETURN,
    UNKNOWN_FIELDS,
)
from services.core.settings import Settings, SettingsError
from services.core.topic_admin import check_scoring_topics
from services.core.zombie_fence import ZombieFence
from services.scoring.faust_app import ChangelogTable, make_app, subscribe
from services.scoring.fill_rules import FillRules
from services.scoring.ordered_inputs import Event, Inputs
from services.scoring.scorer import Scored, Scorer

_log = structlog.get_logger()

_TURN: Final = 200
"""Records dealt with before partitions may move."""
_IDLE_S: Final = 0.05
_HOUSEKEEPING_S: Final = 1.0
_MAX_UNFINISHED: Final = 2_000
_DRAIN_S: Final = 5.0
_LEAVE_S: Final = 10.0

_Sent = asyncio.Future[Any]


class ScoringService:
    """One member of the scoring group. `run` it once; `counts` may be read at any time."""

    def __init__(self, bus: Bus, settings: Settings, clock: Clock, health: Health) -> None:
        """Make a service; it is ready once it has read the instruments and has restored the judges of its partitions."""
        if settings.bus.url == "memory://":
            raise SettingsError("bus.url is memory://, and the scorer runs on Kafka alone, as Faust does; name a kafka:// address")
        self.counts: Counter[Disposition] = Counter()
        self._bus = bus
        self._settings = settings
        self._clock = clock
        self._health = health
        self._health.require("instruments", "assigned")
        self._fence = ZombieFence.of(settings.bus)
        self._decoders = RecordDecoders(settings.topics)
        self._instruments = Instruments(bus, clock, settings.run_mode, "aquiline-scoring-instruments")
        self._names = {topic: topic_name(topic, settings.run_mode) for topic in Topic}
        self._dealing = asyncio.Lock()
        """Held while records are dealt with, so that partitions move in between."""
        self._unfinished: deque[tuple[Event, list[_Sent]]] = deque()
        self._stopping = asyncio.Event()
        self._kept_s = float("-inf")
        self._last_behind = -1
        self._producer: Producer

    def stop(self) -> None:
        """Have `run` finish and commit what it has begun, and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`; raise BusError or ServiceError when it cannot go on."""
        self._partitions = await check_scoring_topics(self._bus, self._settings.run_mode)
        await self._instruments.start()
        await self._instruments.load_calendars()
        self._health.set("instruments")
        async with self._connected(), asyncio.TaskGroup() as tasks:
            lag = LagMonitor(self._bus, "aquiline-scoring-lag", lambda: self._inputs.done)
            helpers = [tasks.create_task(one) for one in (self._inputs.follow(), self._fence.keep(), lag.run())]
            helpers.append(tasks.create_task(self._app.start()))
            work = tasks.create_task(self._work())
            helpers.append(tasks.create_task(self._give_up(work)))
            await asyncio.wait([work])
            for task in helpers:
                task.cancel()
        _log.info("drained", records=self.counts.total())

    async def _give_up(self, work: asyncio.Task[None]) -> None:
        """Once told to stop, let `work` finish what it has begun, but not for longer than a broker that is gone would have it wait."""
        await self._stopping.wait()
        _, left = await asyncio.wait([work], timeout=_DRAIN_S)
        if left:
            _log.warning("drain_given_up", after_s=_DRAIN_S)
            work.cancel()

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        settings, scoring = self._settings, self._settings.scoring
        self._app = app = make_app(settings)
        self._judges = ChangelogTable(app, "judges", settings.topics.on_broker(self._names[Topic.SCORING_JUDGES]), self._fence)
        topics = self._names[Topic.STRATEGY_SIGNALS], self._names[Topic.MARKET_FEATURES]
        self._inputs = Inputs(app, subscribe(app, settings), topics, settings.topics)
        self._scorer = Scorer(
            self._instruments,
            partial(FillRules.of, scoring, settings.fusion.max_jump),
            CandleRules(accepted_modes(settings.run_mode), settings.bus.max_record_bytes, settings.fusion.max_skew_ms),
            self._partitions,
            lambda symbol: self._judges.get(symbol.encode()),
        )
        app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        self._producer = await self._bus.producer(client_id="aquiline-scoring", before_write=self._fence.check)
        await self._inputs.start(self._bus)
        try:
            yield
        except Exception as error:
            # Told here too: leaving may end the process.
            _log.error("cannot_go_on", reasons=explained[1] if (explained := explain(error)) else repr(error))
            raise
        finally:
            await self._leave()

    async def _leave(self) -> None:
        async def leave() -> None:
            # Leaving the group commits what is acknowledged, so it comes first.
            await self._app.stop()
            await self._inputs.close()
            await self._producer.close()
            await self._instruments.close()

        leaving = asyncio.create_task(leave())
        await asyncio.wait([leaving], timeout=_LEAVE_S)
        if not leaving.done():
            # Without a broker Faust's tasks and threads wait for ever, and do not heed being cancelled. What is not committed is
            # read again, as after a crash.
            _log.warning("left_without_commit", after_s=_LEAVE_S)
            os._exit(EXIT_FAILED)
        leaving.result()

    async def _on_revoked(self, *_: object, **__: object) -> None:
        """Wait for what is under way, so that whoever takes over reads it, and forget the partitions."""
        self._health.clear("assigned", "rebalancing")
        self._health.excuse("rebalancing")
        async with self._dealing:
            with contextlib.suppress(ServiceError):  # what the broker did not take is read again by whoever takes over
                await self._finish(at_most=0)
            self._unfinished.clear()
            self._inputs.shut()
            self._scorer.begin([])
            self._judges.forget()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            if self._app.crashed:
                raise ServiceError(f"the scorer's Kafka client ended with {self._app.crash_reason!r}; see what it logged, and start again")
            async with self._dealing:
                if self._inputs.stale:
                    await self._take_over()
                busy = await self._turn()
            if loop.time() - self._kept_s >= _HOUSEKEEPING_S:
                self._kept_s = loop.time()
                await self._keep_house()
            if not busy:
                self._inputs.arrived.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._inputs.arrived.wait(), _IDLE_S)
        async with self._dealing:
            await self._finish(at_most=0)

    async def _take_over(self) -> None:
        await self._inputs.open()
        await self._instruments.refresh()
        self._scorer.begin(key.decode() for key in self._judges.held())
        self._health.end_excuse("rebalancing")
        self._health.set("assigned")

    async def _turn(self) -> bool:
        """Deal with some records; return whether there may be more at once."""
        for _ in range(_TURN):
            event = self._inputs.take()
            if event is None:
                break
            await self._deal(event)
            await self._finish(at_most=_MAX_UNFINISHED)
        else:
            return True
        await self._finish(at_most=len(self._unfinished))
        return await self._inputs.look()

    async def _deal(self, event: Event) -> None:
        [record] = await self._decoders.decoded([self._inputs.record_of(event)])
        take, topic = (
            (self._scorer.signal, Topic.STRATEGY_SIGNALS)
            if record.topic == self._names[Topic.STRATEGY_SIGNALS]
            else (self._scorer.bar, Topic.MARKET_FEATURES)
        )
        scored = take(record)
        if scored.may_change_on_refresh and await self._instruments.refresh_for_record():
            scored = take(record)
        sent: list[_Sent] = []
        outcome = scored.disposition
        if scored.refused is not None and outcome is Disposition.DEAD_LETTERED:
            DEAD_LETTERS.labels(scored.refused.reason.value).inc()
            acknowledged = await send_dead_letter(record, scored.refused, self._producer, self._names[Topic.DEAD_LETTERS], self._clock)
            sent.append(asyncio.ensure_future(acknowledged))
        elif outcome is Disposition.FOLDED:
            await self._publish(scored.outcomes)
            state, key = self._scorer.dump(scored.symbol), scored.symbol.encode()
            if state == self._judges.get(key):
                outcome = Disposition.DUPLICATE
            else:
                sent.append(self._judges.put(record.partition, key, state))
        self._count(topic, scored, outcome)
        self._unfinished.append((event, sent))

    async def _publish(self, outcomes: list[SignalOutcome]) -> None:
        """Publish outcomes and count them once they are acknowledged; raise when the broker does not take them."""
        topic = self._names[Topic.SIGNAL_OUTCOMES]
        for acknowledged in [await self._producer.send(topic, key=one.symbol.encode(), value=one.encode()) for one in outcomes]:
            await acknowledged
        for outcome in outcomes:
            SIGNAL_OUTCOMES.labels(
                outcome.action.value, outcome.source, outcome.vision, outcome.unfilled_reason or outcome.exit_reason.value
            ).inc()
            if outcome.return_net is not None:
                labels = (outcome.action.value, outcome.source, outcome.vision)
                SIGNAL_RETURN.labels(*labels).observe(outcome.return_net)
                SIGNAL_GAIN.labels(*labels).inc(max(0.0, outcome.return_net))
                SIGNAL_LOSS.labels(*labels).inc(max(0.0, -outcome.return_net))
            if outcome.brier is not None and outcome.log_loss is not None:
                SIGNAL_BRIER.labels(outcome.action.value, outcome.source).observe(outcome.brier)
                SIGNAL_LOG_LOSS.labels(outcome.action.value, outcome.source).observe(outcome.log_loss)

    async def _finish(self, at_most: int) -> None:
        """Acknowledge records in their order as what they made is taken, until at most so many are not; raise when it was not."""
        while self._unfinished:
            event, sent = self._unfinished[0]
            if not all(one.done() for one in sent) and len(self._unfinished) <= at_most:
                return
            await _all_taken(sent)
            event.ack()
            self._unfinished.popleft()

    async def _keep_house(self) -> None:
        OPEN_SIGNALS.set(self._scorer.open_signals)
        try:
            behind = await self._inputs.behind()
        except BusError as error:
            self._health.excuse("broker")
            _log.warning("broker_unreachable", reason=str(error))
            return
        self._health.end_excuse("broker")
        if self._inputs.partitions and (behind == 0 or behind != self._last_behind):
            self._health.progress()
        self._last_behind = behind
        await self._instruments.refresh()

    def _count(self, topic: Topic, scored: Scored, outcome: Disposition) -> None:
        self.counts[outcome] += 1
        RECORDS.labels(topic.value, outcome.value).inc()
        UNKNOWN_FIELDS.inc(scored.unknown_fields)


async def _all_taken(sent: list[_Sent]) -> None:
    try:
        for one in sent:
            await one
    except BusError:
        raise
    except Exception as error:
        raise ServiceError(
            f"the broker did not take a record of the scorer's changelog ({error}); nothing after it is committed. "
            "See to the broker, and start the scorer again"
        ) from error
