"""Posts signals and withdrawals to a webhook, each until it is taken or has expired; at most once under its `Idempotency-Key`.

AQUILINE_WEBHOOK=https://desk.example/signals python webhook.py 127.0.0.1:9092

For a Kafka with TLS or log-in set the variables that `signal_inbox.security` reads.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Final

import aiohttp
from signal_inbox import Act, SignalInbox, Withdraw, follow

_PAUSE_S: Final = 0.2
_TIMEOUT: Final = aiohttp.ClientTimeout(total=2)
_WITHDRAWAL_S: Final = 60.0
"""How long a withdrawal is tried: it matters until what was ordered is filled or has expired."""


def body(step: Act | Withdraw) -> dict[str, object]:
    """Return what is posted."""
    signal = step.signal
    what = {"signal_id": str(signal.signal_id), "symbol": signal.symbol, "action": signal.action.value}
    if isinstance(step, Withdraw):
        return {"kind": "withdraw", **what, "reason": step.reason}
    prices = {"entry_type": signal.entry_type, "entry": signal.entry, "stop": signal.stop, "target": signal.target}
    return {"kind": "act", **what, **prices, "conviction": signal.conviction, "valid_until_ms": signal.valid_until_ms}


async def post(http: aiohttp.ClientSession, url: str, step: Act | Withdraw) -> bool:
    """Post a step until the receiver answers 2xx; return False when it expired first, or was refused (4xx)."""
    key = f"{step.signal.signal_id}/{'act' if isinstance(step, Act) else 'withdraw'}"
    until_s = step.signal.valid_until_ms / 1_000 if isinstance(step, Act) else time.time() + _WITHDRAWAL_S
    while time.time() <= until_s:
        try:
            async with http.post(url, json=body(step), headers={"Idempotency-Key": key}, timeout=_TIMEOUT) as response:
                if response.status < 300:  # noqa: PLR2004 - taken
                    return True
                if response.status < 500:  # noqa: PLR2004 - refused: it will be refused again
                    return False
        except (aiohttp.ClientError, TimeoutError):
            pass  # not reached: it is tried again while there is time
        await asyncio.sleep(_PAUSE_S)
    return False


async def main(bootstrap: str, url: str) -> None:
    """Follow live signals for ever."""
    async with aiohttp.ClientSession() as http:
        async for step in follow(bootstrap, "strategy-signals", "webhook", SignalInbox()):
            await post(http, url, step)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], os.environ["AQUILINE_WEBHOOK"]))
