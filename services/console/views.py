"""What the API answers with: each view of the page, made from what the console has read; and the commands that it sends."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import islice
from typing import Final

from schemas import Instrument, InstrumentEvent, RunMode, SignalOutcome, VisionFeatures, interval_ms
from services.console.chart_image import ChartImage, redraw
from services.console.events import EventLog
from services.console.follower import TopicFollower
from services.console.models import (
    Command,
    DecisionRow,
    Feed,
    Halt,
    Now,
    Published,
    Score,
    SymbolRow,
    SymbolSignal,
    SymbolView,
    VisionPattern,
    VisionView,
)
from services.console.prompts import PromptViewer
from services.console.recent import Recent
from services.console.score import ScoreBuilder
from services.console.worker_metrics import WorkerMetrics
from services.core.bus import Bus
from services.core.clock import Clock
from services.core.instruments import Instruments
from services.core.operator_commands import make_command, publish_command
from services.core.settings import Settings
from services.fusion.decide.control import ControlTable

_DECISIONS: Final = 200
"""Of a symbol."""
_LAST_POINTS: Final = 3
"""Of the timeline, sent every second: those that may still change."""


class Views:
    """The page's views."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        configurations: Sequence[Settings],
        *,
        events: EventLog,
        recent: Recent,
        follower: TopicFollower,
        control: ControlTable,
        instruments: Instruments,
        metrics: WorkerMetrics,
        token_set: bool,
    ) -> None:
        """Show what these have read; `configurations` are the settings of the workers, the console's own first."""
        self._bus = bus
        self._clock = clock
        self._settings = configurations[0]
        self._follower = follower
        self._control = control
        self._instruments = instruments
        self._metrics = metrics
        self._token_set = token_set
        self.run_mode = self._settings.run_mode
        self.compared_mode = compared_mode(self.run_mode)
        self.events = events
        self.recent = recent
        self.prompts = PromptViewer(bus, configurations)
        modes = [self.run_mode, *([self.compared_mode] if self.compared_mode else [])]
        self._score = ScoreBuilder(recent, modes, self._settings.scoring)
        self.now_json = b"{}"
        self.ticks = 0
        """How often `tick` has been called."""

    def tick(self) -> None:
        """Make the present anew, for every client at once."""
        self.now_json = self.now(_LAST_POINTS).model_dump_json().encode()
        self.ticks += 1

    def now(self, points: int | None = None) -> Now:
        """Return the present, with the whole timeline or its last `points`."""
        recent, follower = self.recent, self._follower
        prefix = f"{RunMode.SHADOW.value}." if self.run_mode is RunMode.LIVE else None
        return Now(
            now_ms=self._clock.now_ms(),
            feed=Feed(
                connected=follower.connected,
                behind_records=follower.behind_records,
                problem=follower.problem,
                # A shadow beside live is there or not; both are well.
                missing_topics=[one for one in follower.missing if prefix is None or not one.startswith(prefix)],
                unreadable=recent.unreadable_count,
                held_bytes=recent.held_bytes,
                held_decisions=recent.held_decisions,
            ),
            halt=self.halt(),
            workers=self._metrics.state,
            totals=recent.totals(),
            timeline=recent.timeline.points() if points is None else recent.timeline.points(points),
        )

    def halt(self) -> Halt:
        """Return the halt state; whether a client may change it depends on the client."""
        everything = self._control.halted("")
        symbols = self._control.state.halted_symbols
        return Halt(
            everything=everything,
            symbols={one: self._control.halted(one) or "" for one in symbols},
            may_change=False,
            token_set=self._token_set,
        )

    def symbols(self) -> list[SymbolRow]:
        """Return every symbol with bars, vision features or decisions in memory, by name."""
        intervals: dict[str, list[str]] = {}
        for symbol, interval in self.recent.series():
            intervals.setdefault(symbol, []).append(interval)
        rows = []
        for symbol, of_symbol in sorted(intervals.items()):
            of_symbol.sort(key=interval_ms)
            bars = self.recent.bars(symbol, of_symbol[0])[-1:]
            rows.append(SymbolRow(symbol=symbol, intervals=of_symbol, last_close=bars[0].close if bars else None))
        return rows

    def symbol(self, symbol: str, interval: str | None) -> SymbolView | None:
        """Return a symbol's view, None when nothing of it is in memory."""
        intervals = sorted((one for name, one in self.recent.series() if name == symbol), key=interval_ms)
        decisions = list(islice(self.recent.decisions(symbol=symbol), _DECISIONS))
        if not intervals and not decisions:
            return None
        shown = interval if interval in intervals else (intervals or [decisions[0].interval])[0]
        instrument = self._instruments.get(symbol)
        return SymbolView(
            symbol=symbol,
            interval=shown,
            intervals=intervals or [shown],
            decimals=_decimals(instrument),
            currency=instrument.currency if instrument else None,
            halted=self._control.halted(symbol),
            bars=self.recent.bars(symbol, shown),
            signals=[one for row in decisions if row.interval == shown and (one := self._signal(row)) is not None],
            decisions=decisions,
            vision=self._vision(symbol, shown),
        )

    def chart(self, symbol: str, interval: str) -> ChartImage | None:
        """Return the image of the newest vision features, None when it cannot be drawn again."""
        vision, instrument = self.recent.vision(symbol, interval), self._instruments.get(symbol)
        if vision is None or instrument is None:
            return None
        bars = self.recent.bars(symbol, interval)
        return redraw(vision, bars, instrument, self._instruments.restatements(symbol), self._settings.vision)

    async def score(self) -> Score:
        """Return the score of this run mode and the one beside it."""
        splits = [
            one
            for name in {symbol for symbol, _ in self.recent.series()}
            for one in self._instruments.restatements(name)
            if isinstance(one, InstrumentEvent)
        ]
        return await self._score.score(splits)

    async def publish(self, command: Command) -> Published:
        """Publish an operator's command; raise BusError when the broker does not take it."""
        actor = f"{command.actor.strip()} (console)" if command.actor.strip() else "console"
        record = make_command(self.run_mode, command.symbol, command.state, reason=command.reason, actor=actor, now_ms=self._clock.now_ms())
        position = await publish_command(self._bus, record, delivery_timeout_ms=self._settings.bus.request_timeout_ms)
        return Published(topic=position.topic, offset=position.offset)

    def _signal(self, row: DecisionRow) -> SymbolSignal | None:
        signal = self.recent.signal_of(row)
        if signal is None:
            return None
        result: SignalOutcome | None = self.recent.result(signal.signal_id)
        return SymbolSignal(
            row=row,
            as_of_ms=signal.as_of.market.ts_event_ms,
            ref_price=signal.ref_price,
            horizon_bars=signal.horizon_bars,
            validity_ms=max(0, signal.valid_until_ms - signal.as_of.market.ts_ms),
            probabilities=None if signal.probabilities is None else {str(name): value for name, value in signal.probabilities.items()},
            result=result,
        )

    def _vision(self, symbol: str, interval: str) -> VisionView | None:
        vision: VisionFeatures | None = self.recent.vision(symbol, interval)
        if vision is None:
            return None
        image = self.chart(symbol, interval)
        skill = vision.detector.skill
        return VisionView(
            window_end_ms=vision.window_end_ms,
            window_bars=vision.window_bars,
            detector=f"{vision.detector.name} {vision.detector.version}",
            p_up=vision.p_up,
            beats_chance=skill is not None and skill.beats_chance,
            patterns=[
                VisionPattern(label=one.label, score=one.score, first_bar=one.first_bar, last_bar=one.last_bar) for one in vision.patterns
            ],
            image=None if image is None else f"/api/symbols/{symbol}/chart.png?interval={interval}&end={vision.window_end_ms}",
            image_matches=image is not None and image.matches,
        )


def compared_mode(run_mode: RunMode) -> RunMode | None:
    """Return the run mode whose outcomes are shown beside those of `run_mode`: live and shadow beside each other."""
    return {RunMode.LIVE: RunMode.SHADOW, RunMode.SHADOW: RunMode.LIVE}.get(run_mode)


def _decimals(instrument: Instrument | None) -> int:
    """Return the digits after the point of the instrument's tick."""
    exponent = -2 if instrument is None else Decimal(instrument.price_increment).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 2
