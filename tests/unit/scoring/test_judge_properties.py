"""Whatever the order in which signals, cancels and bars are read, and however often, the outcomes are the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import Action, Cancel, CancelReason, ExitReason, MarketFeatures, Signal, SignalOutcome
from services.scoring.fill_rules import FillRules
from services.scoring.judge import Judge
from tests.unit.scoring.build import MINUTE, Move, at, bar, cancel, feed, judge, signal, take

COSTS = FillRules(cost_bps=2.0, slippage_bps=1.0, max_jump=1.007)
"""With a jump every few bars that looks like a split which nobody published."""
SPAN = 24
"""Bars in a market of these tests."""


@dataclass(frozen=True)
class Market:
    """Bars in order, and what was said about them."""

    bars: Sequence[MarketFeatures]
    said: Sequence[Signal | Cancel]


@st.composite
def markets(draw: st.DrawFn) -> Market:
    price, made = 1_000, []
    for number in range(SPAN):
        opening = price + draw(st.integers(-3, 3))
        closing = opening + draw(st.integers(-8, 8))
        high = max(opening, closing) + draw(st.integers(0, 5))
        low = min(opening, closing) - draw(st.integers(0, 5))
        price = closing
        if draw(st.integers(0, 9)):  # every tenth bar is missing
            made.append(bar(number, " ".join(f"{tenths / 10}" for tenths in (opening, high, low, closing))))
    said: list[Signal | Cancel] = []
    for number in range(draw(st.integers(1, 8))):
        action = draw(st.sampled_from(["buy", "sell", "buy", "sell", "exit", "hold"]))
        minute = draw(st.integers(0, SPAN - 6))
        fields: dict[str, object] = {
            "mode": draw(st.sampled_from(["fast", "fast", "deep"])),
            "horizon_bars": draw(st.integers(1, 9)),
            "valid_until_ms": at(minute) + draw(st.sampled_from([3_000, 3 * MINUTE])),
            "conviction": number / 10,  # makes the id its own
        }
        if action in {"buy", "sell"}:
            fields["entry_type"] = draw(st.sampled_from(["market", "limit"]))
        one = signal(action, minute, **fields)
        said.append(one)
        if draw(st.integers(0, 3)) == 0:
            reason = draw(st.sampled_from([CancelReason.HALTED, CancelReason.SUPERSEDED, CancelReason.LATE_ACK]))
            said.append(cancel(one, minute + draw(st.floats(0.1, 6)), reason))
    return Market(made, said)


def by_signal(outcomes: Sequence[SignalOutcome]) -> dict[str, bytes]:
    ids = [str(outcome.signal_id) for outcome in outcomes]
    assert len(set(ids)) == len(ids), "a signal has two outcomes"
    return {str(outcome.signal_id): outcome.encode() for outcome in outcomes}


def ends(market: Market) -> dict[str, int]:
    """Return by signal before how many bars it had not ended, all that was said being known from the start."""
    one = judge(COSTS)
    assert not feed(one, market.said)
    return {str(outcome.signal_id): number for number, bar in enumerate(market.bars) for outcome in one.bar(bar)}


def concerned(market: Market, move: Signal | Cancel) -> set[str]:
    """Return the signals whose end `move` may change."""
    if isinstance(move, Cancel):
        return {str(move.signal_id)}
    if move.action not in {Action.BUY, Action.SELL, Action.EXIT}:
        return set()
    lane = [one for one in market.said if isinstance(one, Signal) and one.mode == move.mode and one is not move]
    return {str(one.signal_id) for one in lane if one.as_of.market.offset <= move.as_of.market.offset}


@st.composite
def readings(draw: st.DrawFn) -> tuple[Market, list[Move]]:
    """Return a market, and an order to read it in: what was said comes before or after its bars, with things read twice.

    Only what would change an outcome comes before that outcome is given, as it does when both topics are read side by side.
    """
    market = draw(markets())
    known = ends(market)
    slots: list[list[Move]] = [[] for _ in range(len(market.bars) + 1)]
    for move in draw(st.permutations(list(market.said))):
        latest = min((known.get(name, len(market.bars)) for name in concerned(market, move)), default=len(market.bars))
        for place in [draw(st.integers(0, latest)), *draw(st.lists(st.integers(0, len(market.bars)), max_size=2))]:
            slots[max(place, 0)].append(move)
    moves: list[Move] = []
    for number, slot in enumerate(slots):
        moves += slot
        if number < len(market.bars):
            moves.append(market.bars[number])
            if number and draw(st.booleans()):
                moves.append(market.bars[draw(st.integers(0, number))])
    return market, moves


@settings(max_examples=100, deadline=None)
@given(readings())
def test_any_order_of_reading_gives_the_same_outcomes(reading: tuple[Market, list[Move]]) -> None:
    market, moves = reading
    assert by_signal(feed(judge(COSTS), [*market.said, *market.bars])) == by_signal(feed(judge(COSTS), moves))


@settings(max_examples=40, deadline=None)
@given(readings(), st.sets(st.integers(0, 60)))
def test_a_judge_put_away_and_taken_out_again_goes_on_as_if_nothing_had_been(reading: tuple[Market, list[Move]], where: set[int]) -> None:
    _, moves = reading
    one, outcomes = judge(COSTS), []
    for number, move in enumerate(moves):
        if number in where:
            state = json.loads(json.dumps(one.dump()))
            one = judge(COSTS)
            one.load(state)
            assert state == json.loads(json.dumps(one.dump()))
        outcomes += take(one, move)
    assert feed(judge(COSTS), moves) == outcomes


@settings(max_examples=40, deadline=None)
@given(markets())
def test_every_signal_to_buy_or_sell_ends_once_within_what_was_possible(market: Market) -> None:
    one = judge(COSTS)
    outcomes = feed(one, [*market.said, *market.bars])
    later = [bar(SPAN + number, "100 100 100 100") for number in range(12)]
    outcomes += feed(one, later)
    signals = {str(said.signal_id): said for said in market.said if isinstance(said, Signal) and said.action in {"buy", "sell"}}
    assert signals.keys() == by_signal(outcomes).keys()
    assert one.open_signals == 0
    for outcome in outcomes:
        said = signals[str(outcome.signal_id)]
        assert said.as_of.market.ts_event_ms <= outcome.ts_exit_ms
        if outcome.ts_entry_ms is None:
            assert outcome.exit_reason in {ExitReason.UNFILLED, ExitReason.CANCELLED, ExitReason.SUPERSEDED}
            continue
        assert said.as_of.market.ts_event_ms <= outcome.ts_entry_ms <= outcome.ts_exit_ms
        if outcome.unscored_reason is not None:
            assert (outcome.exit_reason, outcome.exit, outcome.return_net) == (ExitReason.CANCELLED, None, None)
            continue
        assert outcome.max_adverse is not None and outcome.max_favourable is not None  # noqa: PT018
        assert outcome.max_adverse <= 0 <= outcome.max_favourable
        side = 1 if said.action is Action.BUY else -1
        assert side * float(outcome.entry or 0) <= side * float(said.entry or 0) + 1e-9


def test_the_state_stays_bounded_over_a_long_market() -> None:
    one: Judge = judge(COSTS)
    sizes = []
    for number in range(1_000):
        one.signal(signal(minute=number, conviction=number % 10 / 10))
        one.cancel(cancel(signal("sell", minute=number), number))  # of signals that never come
        one.bar(bar(number, "100 100.2 99.8 100"))
        if number in {499, 999}:
            sizes.append(len(json.dumps(one.dump())))
    assert sizes[1] < sizes[0] * 1.1
