"""What all peers share, so that each of their files shows its library alone: prompts of the same content, the question, the signal.

It needs nothing but OpenAI's client. Settings come from the environment, as the benchmark sets them.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, OpenAI

BOOTSTRAP = os.environ["PEER_BOOTSTRAP"]
MARKET = os.environ["PEER_MARKET_TOPIC"]
PARTITIONS = int(os.environ["PEER_PARTITIONS"])
SIGNALS = os.environ["PEER_SIGNALS_TOPIC"]
GROUP = os.environ["PEER_GROUP"]
STATE = Path(os.environ["PEER_STATE_FOLDER"])
LIVE_FROM_MS = int(os.environ["PEER_LIVE_FROM_MS"])
"""Records that were appended before are history: they fill the windows, and nothing is asked about them."""
CALLS = int(os.environ["PEER_CALLS"])
"""Calls to the engine at once."""
WINDOW_BARS = int(os.environ["PEER_WINDOW_BARS"])
GROWTH_BARS = int(os.environ["PEER_GROWTH_BARS"])
_TEXTS = json.loads(Path(os.environ["PEER_TEXTS_FILE"]).read_text())
_ENGINE = {"base_url": os.environ["PEER_ENGINE_URL"] + "/v1", "api_key": "none", "max_retries": 0, "timeout": 60.0}


@dataclass
class Window:
    """The last bars of one symbol, a row each: `bars` of them, growing by up to `growth` before the oldest are cut."""

    bars: int
    growth: int = 0
    rows: list[str] = field(default_factory=list)
    facts: str = ""

    def take(self, bar: dict[str, Any]) -> None:
        """Add a closed bar."""
        at = datetime.fromtimestamp(bar["ts_close_ms"] / 1000, tz=UTC)
        if not self.rows or at.strftime("%H%M") == "0000":
            self.rows.append(f"-- {at:%a %Y-%m-%d}\n")
        self.rows.append(_row(bar, at))
        if len(self.rows) > self.bars + self.growth:
            del self.rows[: -self.bars]
        values = " ".join(f"{name}={value:g}" for name, value in bar["features"].items())
        self.facts = f"Now {at:%a %Y-%m-%d %H:%M}, session trades at all hours.\nFacts: close={bar['close']:.2f} {values}\n"

    def messages(self, symbol: str) -> list[dict[str, str]]:
        """Return the prompt."""
        user = f"{_TEXTS['instrument'].replace('SYMBOL', symbol)}{_TEXTS['heading']}{''.join(self.rows)}{self.facts}{_TEXTS['question']}"
        return [{"role": "system", "content": _TEXTS["rules"]}, {"role": "user", "content": user}]


def windows(growth: int = 0, bars: int = WINDOW_BARS) -> defaultdict[str, Window]:
    """Return a window for each symbol that is asked for."""
    return defaultdict(lambda: Window(bars, growth))


def _row(bar: dict[str, Any], at: datetime) -> str:
    close = bar["close"]
    open_, high, low = (f"{round(1e5 * (bar[name] - close) / close):+05d}" for name in ("open", "high", "low"))
    return f"{at:%H%M}    {close:.2f} {open_} {high} {low} {bar['volume']:.0e} {bar['features']['rsi']:.0f}\n".replace("e+0", "e")


class Asker:
    """Asks the model through OpenAI's client, from coroutines or from threads."""

    def __init__(self) -> None:
        """Connect with the first question."""
        self._client, self._blocking = AsyncOpenAI(**_ENGINE), OpenAI(**_ENGINE)

    async def ask(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """Return the model's answer; raise ValueError when it cannot be used."""
        return _read(await self._client.chat.completions.create(**_question(messages)))

    def ask_blocking(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """Do the same in the caller's thread."""
        return _read(self._blocking.chat.completions.create(**_question(messages)))


def _question(messages: Iterable[dict[str, str]]) -> dict[str, Any]:
    return {
        "model": "default",
        "messages": messages,
        "max_tokens": 160,
        "temperature": 0.0,
        "extra_body": {"regex": _TEXTS["regex"]},
    }


def _read(completion: Any) -> dict[str, Any]:
    action, *numbers = completion.choices[0].message.content.split()
    usage = completion.usage
    return {
        "action": action,
        "numbers": [int(number) for number in numbers],
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.prompt_tokens_details.cached_tokens,
    }


def signal(symbol: str, record_ms: int, ts_close_ms: int, answer: dict[str, Any]) -> bytes:
    """Return a signal: what the answer says, the bar that it is about, and when that bar's record was appended."""
    return json.dumps({"symbol": symbol, "record_ms": record_ms, "ts_close_ms": ts_close_ms, **answer}).encode()
