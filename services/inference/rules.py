"""Fixed rules in place of a model: what the `rules` engine answers, and what the simulator writes.

They follow the trend and say so; they are there to exercise the path and as a labelled stand-in, not to earn money.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

import orjson

from services.core.clock import Clock
from services.inference.engine import (
    THOUGHT_END,
    Capabilities,
    Chunk,
    EngineError,
    EngineInfo,
    EngineLoad,
    EngineRequest,
    Scores,
    TokenIds,
    Usage,
)

NEEDED: Final = ("close", "atr", "rsi", "ema_fast", "ema_slow")
"""Without one of these there is no view. `p_up`, the chart reader's probability of a rise, weighs in when it is there."""

CAPABILITIES: Final = Capabilities(
    token_ids=False, prewarm=False, abort="no", grammar=True, logprobs=False, cached_tokens=False, regex=True
)

_ENTER_AT: Final = 0.25
_OVERBOUGHT: Final = 80.0
_OVERSOLD: Final = 20.0


def decide(view: Mapping[str, float], *, voice: str = "Fixed rules, no model") -> dict[str, Any]:
    """Return the answer to `view`, by the answer contract and in its order of keys; `voice` opens the rationale.

    trend = (ema_fast - ema_slow) / atr, within -2 to 2; momentum = (rsi - 50) / 25, within -1 to 1; chart = 4 (p_up - 0.5),
    within -1 to 1, 0 without `p_up`. score = 0.25 trend + 0.3 momentum + 0.2 chart, within -1 to 1.
    rsi above 80 on a rise, or below 20 on a fall: `exit`. |score| of at least 0.25: `buy` or `sell`; else `hold`.
    """
    if missing := [name for name in NEEDED if name not in view]:
        said = "missing: " + " ".join(missing)
        return {"action": "abstain", "reason": said, "rationale": f"{voice}: nothing to go by."}
    if view["atr"] <= 0:
        return {"action": "abstain", "reason": f"atr is {view['atr']:g}", "rationale": f"{voice}: no range to measure by."}
    trend = _within((view["ema_fast"] - view["ema_slow"]) / view["atr"], 2)
    momentum = _within((view["rsi"] - 50) / 25, 1)
    chart = _within(4 * (view.get("p_up", 0.5) - 0.5), 1)
    score = _within(0.25 * trend + 0.3 * momentum + 0.2 * chart, 1)
    seen = f"trend {trend:+.2f} ATR, RSI {view['rsi']:.0f}" + (f", chart {view['p_up']:.2f}" if "p_up" in view else "")
    rationale = f"{voice}: {seen}, score {score:+.2f}."
    horizon = 10 if abs(trend) >= 1 else 5
    if (score > 0 and view["rsi"] > _OVERBOUGHT) or (score < 0 and view["rsi"] < _OVERSOLD):
        return {"action": "exit", "conviction": round(50 + 50 * abs(score)), "horizon": horizon, "rationale": rationale}
    if abs(score) < _ENTER_AT:
        conviction = round(60 * (1 - abs(score) / _ENTER_AT))
        return {"action": "hold", "conviction": conviction, "horizon": horizon, "rationale": rationale}
    side = 1 if score > 0 else -1
    return {
        "action": "buy" if side > 0 else "sell",
        "conviction": round(40 + 60 * abs(score)),
        "horizon": horizon,
        "entry": side * 2,
        "stop": -side * 12,
        "target": side * round(18 + 20 * abs(score)),
        "rationale": rationale,
    }


def written(decision: Mapping[str, Any], regex: str | None) -> str:
    """Return `decide`'s answer as text: as `regex` wants it, a line with or without the rationale or the rationale alone, else as JSON."""
    if regex is not None:
        line = " ".join(str(value) for name, value in decision.items() if name != "rationale")
        for text in (f"{line}\n{decision['rationale']}", line, str(decision["rationale"])):
            if re.fullmatch(regex, text):
                return text
    return orjson.dumps(decision).decode()


class RulesEngine:
    """Rules as an engine: it reads `EngineRequest.view` and answers at once."""

    def __init__(
        self, clock: Clock, rules: Callable[[Mapping[str, float]], Mapping[str, Any]] = decide, *, model: str = "fixed rules"
    ) -> None:
        """Take the clock that deadlines are on, the `rules` that answer a view, and what they are called as a `model`."""
        self._clock = clock
        self._rules = rules
        self._model = model

    @property
    def name(self) -> str:
        """Return `rules`."""
        return "rules"

    @property
    def capabilities(self) -> Capabilities:
        """Return that it reads plain values and has no cache."""
        return CAPABILITIES

    async def info(self) -> EngineInfo:
        """Return what it is."""
        return EngineInfo(name=self.name, source="rules", model=self._model)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the answer in one chunk; raise EngineError after the deadline."""
        late_ms = self._clock.now_ms() - request.deadline_ms
        if late_ms >= 0:
            raise EngineError("engine_timeout", f"the deadline had passed {late_ms} ms before the rules were asked")
        # Rules do not think: what reads an answer in mode `deep` waits for the end of a thought.
        text = (THOUGHT_END if request.mode == "deep" else "") + written(self._rules(request.view), request.sampling.regex)
        usage = Usage(prompt_tokens=request.input_ids.size, output_tokens=0, finish_reason="stop")
        yield Chunk(text, None, usage, await self.info())

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        """Do nothing."""
        del rid, affinity
        return Usage(prompt_tokens=input_ids.size, output_tokens=0)

    async def score(self, request: EngineRequest, labels: TokenIds) -> Scores:
        """Raise EngineError: rules have no probabilities."""
        del request, labels
        raise EngineError("engine_refused", "fixed rules give no log-probabilities")

    async def load(self, affinity: str | None = None) -> EngineLoad | None:
        """Return None: it is never busy."""
        del affinity
        return None

    async def watch(self) -> None:
        """Do nothing: rules do not hang."""

    async def close(self) -> None:
        """Do nothing."""


def _within(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))
