"""Fills: a trade beyond limits and targets, an entry on the right side of its stop, never before the decision, at the costs in force."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import pytest

from schemas import ExitReason, Instrument, MarketFeatures, Signal, SignalOutcome
from schemas.examples import EXAMPLES
from services.core.calendar import ALWAYS_OPEN, SessionCalendar
from services.core.settings import ScoringSettings
from services.scoring.fill_rules import FillRules
from services.scoring.judge import Judge
from tests.unit.scoring.build import at, bar, bars, feed, judge, only, signal

TENTH = Decimal("0.1")
LIMIT_BUY = signal("buy", entry_type="limit", entry="99.80", valid_until_ms=at(3))
FLAT = "100 100.2 99.9 100"


def instrument(**fields: Any) -> Instrument:
    values = EXAMPLES[Instrument].model_dump() | {
        "price_increment": "0.10",
        "calendar": ALWAYS_OPEN,
        "tick_table": None,
        "fee_bps": None,
        "slippage_bps": None,
        "fee_per_unit": None,
    }
    return Instrument.model_validate(values | fields)


def rules(*, trade_through: bool = True, **fields: Any) -> FillRules:
    settings = ScoringSettings(cost_bps=0.0, slippage_bps=0.0, trade_through=trade_through)
    return FillRules.of(settings, 1.8, instrument(fee_bps=0.0, slippage_bps=0.0, **fields))


@pytest.mark.parametrize(
    ("trade_through", "low", "opened"), [(True, "99.8", False), (True, "99.7", True), (False, "99.8", True), (False, "99.9", False)]
)
def test_a_limit_is_filled_once_the_market_trades_a_tick_beyond_it(*, trade_through: bool, low: str, opened: bool) -> None:
    one = judge(rules(trade_through=trade_through))
    outcome = feed(one, [LIMIT_BUY, bar(0, f"100.3 100.4 {low} 100.1"), *[bar(number, FLAT) for number in range(1, 6)]])[0]
    assert (outcome.exit_reason is not ExitReason.UNFILLED) == opened
    assert outcome.entry == ("99.80" if opened else None)


@pytest.mark.parametrize(
    ("trade_through", "high", "reason"), [(True, "102", "horizon"), (True, "102.1", "target"), (False, "102", "target")]
)
def test_a_target_is_filled_once_the_market_trades_a_tick_beyond_it(*, trade_through: bool, high: str, reason: str) -> None:
    said = signal(horizon_bars=2)
    outcome = only(feed(judge(rules(trade_through=trade_through)), [said, *bars(FLAT, f"100 {high} 99.9 101")]))
    assert outcome.exit_reason.value == reason
    assert outcome.exit == ("102.00" if reason == "target" else "101.00")


def test_a_gap_beyond_a_limit_or_a_target_is_filled_at_the_open() -> None:
    entered = feed(judge(rules()), [LIMIT_BUY, *bars("99.4 100 99.3 100", "102.5 103 102 102.2")])[0]
    assert (entered.entry, entered.exit, entered.exit_reason) == ("99.40", "102.50", ExitReason.TARGET)


@pytest.mark.parametrize(
    ("said", "opening"),
    [
        (signal("buy"), "98.9 101 98 100"),
        (signal("buy"), "99 101 98 100"),
        (LIMIT_BUY, "98.5 103 98 101"),
        (signal("sell"), "101.4 102 97 98"),
    ],
)
def test_an_entry_that_would_open_beyond_its_stop_is_invalid(said: Signal, opening: str) -> None:
    outcome = only(feed(judge(), [said, *bars(opening)]))
    assert (outcome.exit_reason, outcome.unfilled_reason) == (ExitReason.UNFILLED, "invalid")
    assert (outcome.entry, outcome.return_net, outcome.ts_exit_ms) == (None, None, at(0))


@pytest.mark.parametrize(("interval", "minutes"), [("1m", 1), ("1h", 60), ("1d", 1_440)])
@pytest.mark.parametrize(("decided_ms", "bar_number"), [(3_000, 0), (3_001, 1), (60_000, 1)])
def test_no_fill_is_more_than_three_seconds_before_its_decision(interval: str, minutes: int, decided_ms: int, bar_number: int) -> None:
    valid: dict[str, Any] = {"interval": interval, "ts_decided_ms": at(0) + decided_ms, "valid_until_ms": at(2 * minutes)}
    moves: list[Signal | MarketFeatures] = [signal(**valid)]
    moves += [
        bar(number, FLAT, interval=interval, ts_open_ms=at(number * minutes), ts_close_ms=at((number + 1) * minutes)) for number in range(6)
    ]
    assert feed(judge(), moves)[0].ts_entry_ms == at(bar_number * minutes)


def test_fees_and_slippage_of_an_instrument_go_before_the_settings() -> None:
    settings = ScoringSettings(cost_bps=2.0, slippage_bps=1.0)
    plain = FillRules.of(settings, 1.8, instrument())
    assert (plain.cost_bps, plain.slippage_bps, plain.fee) == (2.0, 1.0, 0.0)
    own = FillRules.of(settings, 1.8, instrument(fee_bps=0.0, slippage_bps=5.0, fee_per_unit=2.5, multiplier=50.0))
    assert (own.cost_bps, own.slippage_bps, own.fee) == (0.0, 5.0, 0.05)


def test_a_fee_for_each_unit_is_paid_on_both_sides() -> None:
    outcome = only(feed(judge(FillRules(0.0, 0.0, fee=0.05)), [signal(), *bars(FLAT, "100 102.5 99.5 101")]))
    assert outcome.return_net == 0.019  # 2.00 less 2 times 0.05, of 100


def test_an_outcome_says_what_was_ordered_and_at_which_costs() -> None:
    said = signal(entry_type="limit", entry="99.80")
    outcome = only(feed(judge(FillRules(2.0, 1.0, ticks_of=instrument())), [said, *bars("100.3 101 99.9 100")]))
    assert outcome.order is not None
    assert outcome.order.model_dump() == {
        "entry_type": "limit",
        "ref_price": "100.00",
        "entry": "99.80",
        "stop": "99.00",
        "target": "102.00",
        "horizon_bars": 5,
        "ts_stands_ms": at(0),
        "ts_from_ms": at(0),
        "ts_until_ms": at(0.05),
        "ts_horizon_ms": at(5),
        "tick": "0.10",
        "cost_bps": 2.0,
        "slippage_bps": 1.0,
        "fee": 0.0,
    }


def test_a_state_from_before_orders_were_recorded_is_played_on() -> None:
    first = judge()
    feed(first, [signal(), *bars(FLAT)])
    state = first.dump()
    for paper in state["open"]:
        for name in ("entry_fill", "target_fill", "order"):
            del paper[name]
    second = judge()
    second.load(state)
    outcome = only(feed(second, [bar(1, "100 102.5 99.5 101")]))
    assert (outcome.exit_reason, outcome.order) == (ExitReason.TARGET, None)


@dataclass
class ByHand:
    """How one position went, worked out in decimals, long and short each on its own."""

    reason: str
    entry: Decimal | None = None
    exit: Decimal | None = None

    def net(self, *, long: bool, cost_bps: Decimal) -> float | None:
        if self.entry is None or self.exit is None:
            return None
        made = self.exit - self.entry if long else self.entry - self.exit
        share = (made - (self.entry + self.exit) * cost_bps / 10_000) / self.entry
        return float(share.quantize(Decimal("1e-8"), ROUND_HALF_EVEN))


def by_hand(said: Signal, prices: Sequence[tuple[Decimal, ...]], slippage_bps: Decimal, valid_bars: int) -> ByHand:  # noqa: C901, PLR0912, PLR0911 - written out, to be read beside docs/scoring.md
    long = said.action.value == "buy"
    entry, stop, target = Decimal(said.entry or ""), Decimal(said.stop or ""), Decimal(said.target or "")
    worse = 1 + slippage_bps / 10_000 if long else 1 - slippage_bps / 10_000
    better = 2 - worse
    paid: Decimal | None = None
    for number, (opening, high, low, close) in enumerate(prices[: said.horizon_bars or 0]):
        whole = paid is not None  # whether all of the bar's prices come after the entry
        if paid is None:
            if number >= valid_bars:
                return ByHand("unfilled")
            if (opening <= stop) if long else (opening >= stop):
                return ByHand("invalid")
            if said.entry_type == "market":
                if (opening * worse <= entry) if long else (opening * worse >= entry):
                    paid, whole = opening * worse, True
            elif (opening <= entry - TENTH) if long else (opening >= entry + TENTH):
                paid, whole = opening, True
            elif (low <= entry - TENTH) if long else (high >= entry + TENTH):
                paid = entry
            if paid is None:
                continue
        if whole:
            if (opening <= stop) if long else (opening >= stop):
                return ByHand("stop", paid, opening * better)
            if (opening >= target + TENTH) if long else (opening <= target - TENTH):
                return ByHand("target", paid, opening)
        if (low <= stop) if long else (high >= stop):
            return ByHand("stop", paid, stop * better)
        seen = (high if long else low) if whole else close
        if (seen >= target + TENTH) if long else (seen <= target - TENTH):
            return ByHand("target", paid, target)
        if number == (said.horizon_bars or 0) - 1:
            return ByHand("horizon", paid, close * better)
    return ByHand("unfilled")


def test_a_thousand_random_positions_agree_with_fills_worked_out_by_hand_to_the_last_digit() -> None:
    generator = random.Random(7)  # noqa: S311 - a market, not a secret
    cost_bps, slippage_bps = 2.0, 1.0
    fills = FillRules(cost_bps, slippage_bps, ticks_of=instrument())
    reasons: dict[str, int] = {}
    for number in range(1_000):
        horizon, valid_bars = generator.randint(1, 8), generator.randint(1, 4)
        prices, at_tenths = [], 1_000
        for _ in range(horizon):
            opening = at_tenths + (generator.randint(-12, 12) if generator.random() < 0.3 else 0)
            closing = opening + generator.randint(-7, 7)
            high, low = max(opening, closing) + generator.randint(0, 5), min(opening, closing) - generator.randint(0, 5)
            prices.append(tuple(Decimal(one) / 10 for one in (opening, high, low, closing)))
            at_tenths = closing
        side, limit = generator.choice([1, -1]), generator.random() < 0.5
        off = -generator.randint(1, 5) if limit else generator.randint(0, 4)
        levels = [f"{Decimal(1_000 + side * one) / 10:.2f}" for one in (off, -generator.randint(6, 15), generator.randint(5, 20))]
        said = signal(
            "buy" if side > 0 else "sell",
            entry_type="limit" if limit else "market",
            entry=levels[0],
            stop=levels[1],
            target=levels[2],
            horizon_bars=horizon,
            valid_until_ms=at(valid_bars - 1) + 3_000,
            conviction=number / 1_000,
        )
        expected = by_hand(said, prices, Decimal(str(slippage_bps)), valid_bars)
        found = _judged(said, fills, prices)
        reason = found.unfilled_reason or found.exit_reason.value
        reasons[reason] = reasons.get(reason, 0) + 1
        where = (number, said.model_dump(include={"action", "entry_type", "entry", "stop", "target"}), prices)
        assert reason == expected.reason, where
        assert [None if one is None else Decimal(one) for one in (found.entry, found.exit)] == [expected.entry, expected.exit], where
        assert found.return_net == expected.net(long=side > 0, cost_bps=Decimal(str(cost_bps))), where
    assert reasons.keys() == {"target", "stop", "horizon", "unfilled", "invalid"}
    assert min(reasons.values()) >= 20, reasons


def _judged(said: Signal, fills: FillRules, prices: Sequence[tuple[Decimal, ...]]) -> SignalOutcome:
    one = Judge(fills, SessionCalendar.of(ALWAYS_OPEN))
    moves = [bar(number, " ".join(map(str, of_bar))) for number, of_bar in enumerate(prices)]
    return only(feed(one, [said, *moves, bar(len(prices), "100 100 100 100")]))
