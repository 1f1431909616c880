"""Sending prefixes ahead when an engine fails."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from services.core.clock import VirtualClock
from services.core.settings import RedisSettings
from services.fusion.prompt.builder import PromptBuilder
from services.fusion.prompt.prewarm import Prewarmer
from services.fusion.prompt.store import PrefixStore
from services.fusion.state.intake import NullSink
from services.inference.engine import EngineError, TokenIds, Usage
from tests.unit.fusion import build
from tests.unit.fusion.build import bar, instrument, record
from tests.unit.fusion.desk import ScriptedEngine
from tests.unit.fusion.log import Folder

SYMBOLS = [f"COIN{number}-USD.CBSE" for number in range(4)]


class FailingOnce(ScriptedEngine):
    """Refuses the first call for one symbol, as one of several engines does that is gone."""

    def __init__(self, symbol: str) -> None:
        super().__init__()
        self._failing: str | None = symbol
        self.sent: set[str] = set()

    async def warm(self, rid: str, affinity: str, input_ids: TokenIds) -> Usage:
        if affinity == self._failing:
            self._failing = None
            raise EngineError("engine_unreachable", "connection refused")
        self.sent.add(affinity)
        return await super().warm(rid, affinity, input_ids)


async def test_one_engine_error_costs_its_own_prefix_and_no_other() -> None:
    using = build.settings(prewarm=True, min_bars=1)
    folder = Folder(using, instruments=[instrument(symbol) for symbol in SYMBOLS])
    for number, symbol in enumerate(SYMBOLS):
        for slot in range(3):
            folder.intake.take(record(10 * number + slot, bar(slot, symbol=symbol)), NullSink())
    store = PrefixStore(None, RedisSettings(url="none://"), VirtualClock(), "test")
    prompts = PromptBuilder(using.fusion, build.tokenizer(), "minicpm4", store, 1_000_000)
    engine = FailingOnce(SYMBOLS[0])
    prewarmer = Prewarmer(using, folder.clock, engine, prompts, folder.books)
    running = asyncio.create_task(prewarmer.run())
    prewarmer.warm_current(SYMBOLS)
    await prewarmer.idle()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert engine.sent == set(SYMBOLS[1:])
