"""Lanes and pace on the simulated GPU, in simulated time: 200 symbols with prompts of 4K tokens, on a cold engine and on a full one."""

from __future__ import annotations

import heapq
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from schemas import Mode
from services.fusion.decide.lanes import Lanes, Verdict
from services.fusion.decide.pace import EnginePace
from services.fusion.state.triggers import Trigger
from services.inference.engine import TokenIds
from services.inference.simulator.gpu import Call, Gpu
from services.inference.simulator.timing import Acceptance, Calibration
from tests.unit.fusion.build import START, trigger

CALIBRATION: Final = Calibration.from_file(Path("services/inference/data/calibration-h100.json"))
CALLS: Final = 8
SYMBOLS: Final = 200
TOKENS: Final = 4_096
RULES_TOKENS: Final = 900
LINE_TOKENS: Final = 30
TAIL_TOKENS: Final = 200
ANSWER_TOKENS: Final = 20
COLD_PER_S: Final = 5.3
"""Two thirds of what the GPU ends in a second when nothing is cached."""
LEFT_MS: Final = 2_500
"""From a bar's record to its deadline: a validity of 3 s less the delivery reserve."""


@dataclass
class Symbol:
    """A prompt that grows by a line a bar."""

    number: int
    bars: int = 0

    def prompt(self) -> TokenIds:
        """Return rules, the symbol's own history and lines, and a tail that no other prompt has."""
        random = np.random.default_rng(self.number)
        own = random.integers(10_000, 70_000, TOKENS - RULES_TOKENS - TAIL_TOKENS + 200 * LINE_TOKENS).astype(np.int32)
        grown = own[: TOKENS - RULES_TOKENS - TAIL_TOKENS + self.bars * LINE_TOKENS]
        tail = np.full(TAIL_TOKENS, 1_000 * self.bars + self.number, np.int32)
        return np.concatenate([np.arange(RULES_TOKENS, dtype=np.int32), grown, tail])


@dataclass
class Desk:
    """A worker on one GPU; `plain` asks about the latest bar of each symbol in turn, and knows no deadline."""

    plain: bool = False
    now_ms: float = 0.0
    gpu: Gpu = field(default_factory=lambda: Gpu(CALIBRATION))
    ages_ms: list[float] = field(default_factory=list)
    asked: int = 0
    in_vain: int = 0
    unasked: int = 0

    def __post_init__(self) -> None:
        self.symbols = [Symbol(number) for number in range(SYMBOLS)]
        self.warm: set[int] = set()
        self.pace = EnginePace(1_000)
        permits: dict[Mode, int] = {"fast": CALLS}
        never = 1_000_000_000
        self.lanes = Lanes(permits, never, lambda key: int(key.symbol) not in self.warm)
        self.latest: dict[str, Trigger] = {}
        """What `plain` asks about next, by symbol, the longest waiting first."""
        self.calls: dict[str, tuple[Call, Trigger]] = {}
        self.deadlines: list[tuple[float, str]] = []

    def left_ms(self, one: Trigger) -> float:
        return one.origin.ts_ms - START + LEFT_MS - self.now_ms

    def verdict(self, one: Trigger, passed_over: bool) -> Verdict:  # noqa: FBT001 - the lanes call it
        left_ms, warm = self.left_ms(one), int(one.lane.symbol) in self.warm
        if left_ms < 0:
            return "end" if passed_over else "ask"
        needed_ms = self.pace.needed_ms("fast", warm=warm)
        if needed_ms is not None and needed_ms > left_ms:
            return "wait"
        self.pace.begin(one.trigger_id, "fast", self.now_ms, warm=warm)
        return "ask"

    def turn(self) -> None:
        if self.plain:
            while self.latest and len(self.calls) < CALLS:
                self.ask(self.latest.pop(next(iter(self.latest))))
            return
        started, ended = self.lanes.start_ready(START + int(self.now_ms), self.verdict)
        self.unasked += len(ended)
        for one, _ in started:
            if self.left_ms(one) < 0:
                self.lanes.finish(one)  # as its decision finds before it asks
                self.unasked += 1
                continue
            self.ask(one)
            heapq.heappush(self.deadlines, (self.now_ms + self.left_ms(one), one.trigger_id.hex))

    def ask(self, one: Trigger) -> None:
        rid = one.trigger_id.hex
        answer = np.zeros(ANSWER_TOKENS, np.int32)
        prompt = self.symbols[int(one.lane.symbol)].prompt()
        call = Call(rid, prompt, answer, 160, Acceptance(CALIBRATION.speculation, rid), self.now_ms)
        self.calls[rid] = call, one
        self.asked += 1
        self.gpu.submit(call)

    def ended(self, call: Call, one: Trigger) -> None:
        del self.calls[call.rid]
        if not self.plain:
            self.lanes.finish(one)
        if call.finish == "abort":
            self.in_vain += 1
            self.pace.timed_out(one.trigger_id, self.now_ms)
            return
        self.warm.add(int(one.lane.symbol))
        self.pace.answered(one.trigger_id, self.now_ms, call.input_ids.size - call.cached_tokens)
        self.ages_ms.append(self.now_ms - (one.origin.ts_ms - START))

    def work_until(self, at_ms: float) -> None:
        """Let the GPU work until `at_ms`; a step is never interrupted."""
        while self.now_ms < at_ms:
            while self.deadlines and self.deadlines[0][0] <= self.now_ms:
                _, rid = heapq.heappop(self.deadlines)
                if rid in self.calls:
                    call, one = self.calls[rid]
                    self.gpu.abort(rid, self.now_ms)
                    self.ended(call, one)
            self.turn()
            step = self.gpu.next_step(self.now_ms)
            if step is None:
                self.now_ms = at_ms
                return
            self.now_ms += step.duration_ms
            for call in self.gpu.finish(step, self.now_ms):
                one = self.calls[call.rid][1]
                self.pace.first_token(one.trigger_id, self.now_ms)
                if call.finish is not None:
                    self.ended(call, one)

    def play(self, per_s: float, seconds: float) -> None:
        began = self.now_ms
        for at in range(int(per_s * seconds)):
            self.work_until(began + at / per_s * 1_000)
            symbol = self.symbols[at % SYMBOLS]
            symbol.bars += 1
            now_ms = START + int(self.now_ms)
            one = trigger(1_000 * symbol.number + symbol.bars, str(symbol.number), ts_ms=now_ms)
            if self.plain:
                self.latest[one.lane.symbol] = one
            else:
                self.lanes.offer(one, now_ms)
        self.work_until(began + seconds * 1_000)

    def on_time(self) -> int:
        return sum(age_ms <= LEFT_MS + 500 for age_ms in self.ages_ms)


def played(times: float, seconds: float, *, plain: bool, warm: bool) -> Desk:
    desk = Desk(plain=plain)
    if warm:
        desk.play(COLD_PER_S, SYMBOLS / COLD_PER_S)
        desk.play(COLD_PER_S, SYMBOLS / COLD_PER_S)
        desk.ages_ms, desk.asked, desk.in_vain, desk.unasked = [], 0, 0, 0
    desk.play(times * COLD_PER_S, seconds)
    desk.work_until(desk.now_ms + LEFT_MS)
    return desk


def test_a_cold_engine_is_worked_off_no_later_than_by_a_worker_that_asks_in_turn() -> None:
    ours, plain = (played(1, SYMBOLS / COLD_PER_S, plain=plain, warm=False) for plain in (False, True))
    assert ours.on_time() >= plain.on_time()
    assert statistics.median(ours.ages_ms) <= statistics.median(plain.ages_ms)
    assert ours.in_vain == 0


@pytest.mark.parametrize("warm", [False, True])
def test_at_ten_times_the_load_more_is_answered_in_time_and_hardly_anything_is_asked_in_vain(warm: bool) -> None:  # noqa: FBT001 - drawn
    ours, plain = (played(10, 20, plain=plain, warm=warm) for plain in (False, True))
    assert ours.on_time() >= 1.8 * plain.on_time()
    assert len(ours.ages_ms) >= 1.3 * len(plain.ages_ms)  # asked in groups, they share prefill steps
    assert ours.in_vain <= 0.02 * ours.asked
    assert statistics.median(ours.ages_ms) < statistics.median(plain.ages_ms)


def test_at_ten_times_the_load_no_symbol_is_left_out() -> None:
    desk = played(10, 60, plain=False, warm=False)
    assert len(desk.warm) == SYMBOLS
