"""Chart setups: which facts of a prompt speak for a rise or a fall, and a sentence that says so with the prompt's own numbers. Pure.

They propose the decisions that a teacher then judges by what the market did; on their own they are the rule that a model is held against.
Each turns on signs and leading digits alone: a model of 135 million parameters reads those, and cannot compare two prices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

Side = Literal["buy", "sell"]
Kind = Literal["momentum", "reversal"]

UNKNOWN_CONVICTION: Final = 50
_NEEDED: Final = ("close", "atr", "rsi", "macd_hist", "ret_5")
_MIDDLE_RSI: Final = 50.0
_OVERSOLD_RSI: Final = 30.0
_OVERBOUGHT_RSI: Final = 70.0
_ROOM: Final = 10.0
"""An RSI within this of the middle leaves a move room."""


class Levels(NamedTuple):
    """Where a position opens, and where it ends, in tenths of one ATR from the last close; for a sale the signs turn."""

    horizon: int
    entry: int
    stop: int
    target: int


LEVELS: Final[dict[Kind, Levels]] = {"momentum": Levels(10, 3, -25, 20), "reversal": Levels(5, 3, -20, 18)}


class Setup(NamedTuple):
    """A side, what kind of setup it is, and `strength`: 1 where the RSI leaves room, 0 where the move has gone far."""

    side: Side
    kind: Kind
    strength: int

    @property
    def levels(self) -> Levels:
        """Return the levels of this kind, for its side."""
        horizon, *rest = LEVELS[self.kind]
        sign = 1 if self.side == "buy" else -1
        return Levels(horizon, *(sign * level for level in rest))


def setup_of(facts: Mapping[str, float]) -> Setup | None:
    """Return the setup that the facts hold; None where they hold none, a fact is missing, or the ATR is 0."""
    if any(name not in facts for name in _NEEDED) or facts["atr"] <= 0:
        return None
    rsi = facts["rsi"]
    if rsi < _OVERSOLD_RSI or rsi >= _OVERBOUGHT_RSI:
        side: Side = "buy" if rsi < _OVERSOLD_RSI else "sell"
        return Setup(side, "reversal", 0) if (facts["ret_5"] < 0) == (side == "buy") else None
    if facts["macd_hist"] > 0 and facts["ret_5"] > 0 and rsi >= _MIDDLE_RSI:
        return Setup("buy", "momentum", int(rsi < _MIDDLE_RSI + _ROOM))
    if facts["macd_hist"] < 0 and facts["ret_5"] < 0 and rsi < _MIDDLE_RSI:
        return Setup("sell", "momentum", int(rsi >= _MIDDLE_RSI - _ROOM))
    return None


def reason(setup: Setup | None, facts: Mapping[str, float]) -> str:
    """Return why one would not act, in a few words."""
    if setup is not None and setup.kind == "reversal":
        return "rsi is oversold" if setup.side == "buy" else "rsi is overbought"
    if setup is not None:
        word = "up" if setup.side == "buy" else "down"
        return f"momentum {word}, odds about even" if setup.strength else f"momentum {word} has gone far"
    missing = [name for name in _NEEDED if name not in facts]
    if missing:
        return f"{missing[0]} is unknown"
    return "momentum is mixed" if (facts["macd_hist"] > 0) != (facts["ret_5"] > 0) else "rsi does not confirm"


def sentence(setup: Setup | None, facts: Mapping[str, float], texts: Mapping[str, str]) -> str:
    """Return what speaks for `setup`, or why there is none, in one sentence of at most 160 characters and some 40 tokens.

    `texts` are the facts as the prompt writes them.
    """
    if any(name not in facts for name in _NEEDED):
        return "Not enough facts are known to form a view."
    macd, ret, rsi = texts["macd_hist"], texts["ret_5"], texts["rsi"]
    if setup is None:
        if (facts["macd_hist"] > 0) != (facts["ret_5"] > 0):
            return f"Mixed: macd_hist is {macd} but ret_5 is {ret}, with rsi at {rsi}."
        return f"Unconfirmed: macd_hist is {macd} and ret_5 {ret}, but rsi is {rsi}."
    if setup.kind == "reversal":
        return f"{'Oversold' if setup.side == 'buy' else 'Overbought'}: rsi is {rsi} after a ret_5 of {ret}."
    if setup.side == "buy":
        return f"Momentum up: macd_hist {macd} and ret_5 {ret} are positive, rsi {rsi} {'leaves room' if setup.strength else 'is high'}."
    return f"Momentum down: macd_hist {macd} and ret_5 {ret} are negative, rsi {rsi} {'leaves room' if setup.strength else 'is low'}."


def decide(view: Mapping[str, float]) -> dict[str, Any]:
    """Return the setup's position as an answer by the answer contract, or an abstention; for `RulesEngine`.

    The conviction is not known before outcomes are counted: `UNKNOWN_CONVICTION`.
    """
    setup = setup_of(view)
    if setup is None:
        return {"action": "abstain", "reason": "no setup", "rationale": "No setup."}
    rationale = f"{setup.kind.capitalize()} setup."
    return {"action": setup.side, "conviction": UNKNOWN_CONVICTION, **setup.levels._asdict(), "rationale": rationale}
