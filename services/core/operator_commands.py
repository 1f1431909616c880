"""An operator's halt or resume: a record on the topic `control`, which every worker reads before each signal."""

from __future__ import annotations

from typing import Final

from schemas import Control, HaltState, RunMode, Topic, topic_name
from services.core.bus import Bus, BusError, Position

GLOBAL: Final = "global"
"""The scope of a command to every symbol."""
_MAX_REASON: Final = 500
_MAX_ACTOR: Final = 100


def make_command(run_mode: RunMode, symbol: str | None, state: HaltState, *, reason: str, actor: str, now_ms: int) -> Control:
    """Return the record that sets the state of one symbol, or of every symbol when it is None."""
    return Control(
        schema_version=1,
        run_mode=run_mode,
        scope=symbol or GLOBAL,
        state=state,
        reason=reason[:_MAX_REASON],
        actor=actor[:_MAX_ACTOR],
        ts_ms=now_ms,
    )


async def publish_command(bus: Bus, command: Control, *, delivery_timeout_ms: int) -> Position:
    """Publish a command and return where the broker appended it; raise BusError when it may not have been."""
    topic = topic_name(Topic.CONTROL, command.run_mode)
    try:
        producer = await bus.producer(client_id="aquiline-control", delivery_timeout_ms=delivery_timeout_ms)
        try:
            return await (await producer.send(topic, key=command.scope.encode(), value=command.encode()))
        finally:
            await producer.close()
    except BusError as error:
        raise BusError(f"the command may NOT have reached the workers; repeat it once this is fixed: {error}") from error
