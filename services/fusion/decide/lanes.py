"""Lanes: which trigger is asked about next, and which one a newer trigger replaces (conflation). Pure: the caller passes the time.

A lane is idle, waiting (for vision features, without a permit), queued or running. A newer trigger replaces a waiting or queued
one and keeps its place; behind a running one it is the single follow-up, itself replaced by newer ones. Ready lanes run
first-dirty-first, each mode under its own permits, in groups while they queue for them. A lane whose prefix the engine lacks lets the
busy ones go first, each once. A lane whose trigger cannot be answered in time is passed over until a newer trigger replaces it or its
time is up; it keeps its place.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from schemas import Mode
from services.fusion.decide.permits import Permits
from services.fusion.state.triggers import LaneKey, Trigger

_COLD_ROUNDS: Final = 1
"""How often each lane that is busy may go before one whose prefix the engine lacks, though it became ready later: a bound on its wait."""

_PASSED_OVER: Final = 64
"""How many lanes are passed over at a time: a bound on the work when none can be answered in time."""

Verdict = Literal["ask", "wait", "end"]
"""What becomes of a trigger whose turn has come: asked now, passed over for now, or ended unasked."""


class Started(NamedTuple):
    """A trigger that runs from now on; `ready_ms` is when it stopped waiting for vision features."""

    trigger: Trigger
    ready_ms: int


class Ended(NamedTuple):
    """A trigger that ended without being asked."""

    trigger: Trigger
    outcome: Literal["conflated", "stale"]
    reason: str


@dataclass(slots=True)
class _Place:
    """A trigger in line. `order` is where the lane stands; it stays when the trigger is replaced."""

    trigger: Trigger
    order: int
    wait_until_ms: int
    """0 once it waits for nothing."""
    ready_ms: int
    """When it last began to wait for a permit alone."""
    rank: int = -1
    """Where it stands among the ready lanes; -1 when it does not."""
    passed_over: bool = False
    """Whether its trigger could not be answered in time when its turn came."""


@dataclass(slots=True)
class _Lane:
    pending: _Place | None = None
    running: Trigger | None = None


class Lanes:
    """All lanes of a worker."""

    def __init__(self, permits: dict[Mode, int], max_staleness_ms: int, cold: Callable[[LaneKey], bool] = lambda _: False) -> None:
        """`permits` are the calls at once by mode; a trigger older than `max_staleness_ms` when its turn comes is not asked.

        `cold` says whether the engine lacks a lane's prefix.
        """
        self._permits = {mode: Permits(total) for mode, total in permits.items()}
        self._cold = cold
        self._max_staleness_ms = max_staleness_ms
        self._lanes: dict[LaneKey, _Lane] = {}
        self._orders = itertools.count(1)
        self._ready: dict[Mode, list[tuple[int, LaneKey]]] = {mode: [] for mode in permits}
        self._waits: list[tuple[int, int, LaneKey]] = []
        self._kept: dict[LaneKey, int] = {}
        """Places of lanes whose last trigger ended unasked when its turn had come, for their next one."""

    def counts(self) -> dict[str, int]:
        """Return how many lanes are in each state: `waiting`, `queued`, `running`, `follow_up`."""
        found = {"waiting": 0, "queued": 0, "running": 0, "follow_up": 0}
        for lane in self._lanes.values():
            if lane.running is not None:
                found["running"] += 1
            if lane.pending is not None:
                state = "follow_up" if lane.running is not None else "waiting" if lane.pending.wait_until_ms else "queued"
                found[state] += 1
        return found

    def offer(self, trigger: Trigger, now_ms: int, wait_until_ms: int = 0) -> Ended | None:
        """Put `trigger` in line, waiting for vision features until `wait_until_ms` (0: not at all); return the one it replaces.

        A replacement never waits beyond its predecessor, or bars that come faster than vision features would wait for ever.
        """
        lane = self._lanes.setdefault(trigger.lane, _Lane())
        place = lane.pending
        if place is not None:
            replaced, place.trigger = place.trigger, trigger
            place.ready_ms = now_ms
            place.passed_over = False
            if wait_until_ms < place.wait_until_ms:
                place.wait_until_ms = wait_until_ms
                self._line_up(trigger.lane, lane, place)
            return Ended(replaced, "conflated", "newer_trigger")
        lane.pending = place = _Place(trigger, self._kept.pop(trigger.lane, 0) or next(self._orders), wait_until_ms, now_ms)
        self._line_up(trigger.lane, lane, place)
        return None

    def complete_wait(self, symbol: str, interval: str, window_end_ms: int, now_ms: int) -> bool:
        """Note that the vision features of a window are there; return True when a trigger was waiting for them."""
        completed = False
        for mode in self._ready:
            key = LaneKey(symbol, interval, mode)
            lane = self._lanes.get(key)
            place = lane.pending if lane else None
            if lane and place and place.wait_until_ms and place.trigger.window_end_ms <= window_end_ms:
                place.wait_until_ms = 0
                place.ready_ms = now_ms
                self._line_up(key, lane, place)
                completed = True
        return completed

    def next_wake_ms(self) -> int | None:
        """Return when a lane stops waiting for vision features, or free permits for others; None when none waits."""
        wakes = [self._next_wait_end_ms(), *(permits.wake_ms() for permits in self._permits.values())]
        return min((at_ms for at_ms in wakes if at_ms is not None), default=None)

    def start_ready(
        self,
        now_ms: int,
        verdict: Callable[[Trigger, bool], Verdict] = lambda _trigger, _passed_over: "ask",
        held_back: Callable[[Trigger], bool] = lambda _: False,
    ) -> tuple[list[Started], list[Ended]]:
        """Return the triggers that run from now on, each with a permit, and those that end unasked.

        `verdict` is asked about each trigger whose turn has come, and told whether it was passed over before; "ask" counts it as running.
        A lane whose trigger is `held_back` stays as it is.
        """
        self._end_waits(now_ms)
        started: list[Started] = []
        ended: list[Ended] = []
        for mode, heap in self._ready.items():
            if self._permits[mode].may_start(now_ms, queued=bool(heap)):
                of_mode = self._take_turns(mode, now_ms, verdict, held_back)
                started += of_mode[0]
                ended += of_mode[1]
        return started, ended

    def finish(self, trigger: Trigger) -> None:
        """Give the permit of a running trigger back and line its follow-up up; raise KeyError when it does not run."""
        lane = self._lanes[trigger.lane]
        if lane.running is not trigger:
            raise KeyError(f"trigger {trigger.trigger_id} does not run in lane {trigger.lane}")
        lane.running = None
        self._permits[trigger.lane.mode].free += 1
        if lane.pending is not None:
            self._line_up(trigger.lane, lane, lane.pending)
        self._tidy(trigger.lane, lane)

    def evict_oldest(self) -> Ended | None:
        """End the trigger that stands longest in line as stale, to bound the backlog; return None when none stands in line."""
        in_line = [(lane.pending.order, key) for key, lane in self._lanes.items() if lane.pending is not None]
        if not in_line:
            return None
        _, key = min(in_line)
        lane = self._lanes[key]
        assert lane.pending is not None  # noqa: S101 - told by the line above
        trigger, lane.pending = lane.pending.trigger, None
        self._tidy(key, lane)
        return Ended(trigger, "stale", "backlog")

    def drop(self, lost: Callable[[Trigger], bool]) -> list[Trigger]:
        """Forget the triggers in line for which `lost` says so (their partition went elsewhere); they get no outcome here."""
        dropped = []
        for key, lane in list(self._lanes.items()):
            if lane.pending is not None and lost(lane.pending.trigger):
                dropped.append(lane.pending.trigger)
                lane.pending = None
                self._tidy(key, lane)
        return dropped

    def _take_turns(
        self, mode: Mode, now_ms: int, verdict: Callable[[Trigger, bool], Verdict], held_back: Callable[[Trigger], bool]
    ) -> tuple[list[Started], list[Ended]]:
        started: list[Started] = []
        ended: list[Ended] = []
        permits, heap = self._permits[mode], self._ready[mode]
        passed_over: list[tuple[int, LaneKey]] = []
        held: list[tuple[int, LaneKey]] = []
        while permits.free and heap and len(passed_over) < _PASSED_OVER:
            rank, key = heapq.heappop(heap)
            lane = self._lanes.get(key)
            place = lane.pending if lane else None
            if lane is None or place is None or place.rank != rank or place.wait_until_ms or lane.running is not None:
                continue
            if held_back(place.trigger):
                held.append((rank, key))
                continue
            if now_ms - place.trigger.origin.ts_ms > self._max_staleness_ms:
                ended.append(self._end(key, lane, place, "too_old"))
                continue
            match verdict(place.trigger, place.passed_over):
                case "ask":
                    lane.pending = None
                    lane.running = place.trigger
                    permits.free -= 1
                    started.append(Started(place.trigger, place.ready_ms))
                case "wait":
                    place.passed_over = True
                    passed_over.append((rank, key))
                case "end":
                    ended.append(self._end(key, lane, place, "no_time"))
        permits.settled(queued=bool(heap))
        for one in (*passed_over, *held):
            heapq.heappush(heap, one)
        return started, ended

    def _line_up(self, key: LaneKey, lane: _Lane, place: _Place) -> None:
        if place.wait_until_ms:
            heapq.heappush(self._waits, (place.wait_until_ms, place.order, key))
        elif lane.running is None:
            place.rank = place.order + (_COLD_ROUNDS * len(self._lanes) if self._cold(key) else 0)
            heapq.heappush(self._ready[key.mode], (place.rank, key))

    def _end(self, key: LaneKey, lane: _Lane, place: _Place, reason: str) -> Ended:
        lane.pending = None
        self._kept[key] = place.order
        self._tidy(key, lane)
        return Ended(place.trigger, "stale", reason)

    def _next_wait_end_ms(self) -> int | None:
        while self._waits:
            until_ms, order, key = self._waits[0]
            lane = self._lanes.get(key)
            place = lane.pending if lane else None
            if place is not None and place.order == order and place.wait_until_ms == until_ms:
                return until_ms
            heapq.heappop(self._waits)
        return None

    def _end_waits(self, now_ms: int) -> None:
        while (until_ms := self._next_wait_end_ms()) is not None and until_ms <= now_ms:
            _, _, key = heapq.heappop(self._waits)
            lane = self._lanes[key]
            if lane.pending is not None:
                lane.pending.wait_until_ms = 0
                lane.pending.ready_ms = now_ms
                self._line_up(key, lane, lane.pending)

    def _tidy(self, key: LaneKey, lane: _Lane) -> None:
        if lane.pending is None and lane.running is None:
            del self._lanes[key]
