"""Keeps the engine's prefix cache in step with decisions: what to send ahead, what to list as in use, and whether it all fits."""

from __future__ import annotations

from typing import Final

from services.core.fusion_settings import FusionSettings
from services.fusion.observe.result import TriggerResult
from services.fusion.prompt.builder import PromptBuilder
from services.fusion.prompt.capacity import CapacityWatch
from services.fusion.prompt.prewarm import Prewarmer
from services.fusion.prompt.store import PrefixStore
from services.fusion.state.triggers import Trigger

_DOWN: Final = frozenset({"engine_unreachable", "engine_broke", "engine_open"})


class CacheUpkeep:
    """Told of each decision's result."""

    def __init__(
        self, settings: FusionSettings, prompts: PromptBuilder, store: PrefixStore, prewarmer: Prewarmer, kv_tokens: int | None
    ) -> None:
        """`kv_tokens` is the engine's KV capacity, None while it has not told."""
        self._prompts = prompts
        self._store = store
        self._prewarmer = prewarmer
        self._capacity = CapacityWatch(settings.window_bars, prewarm=settings.prewarm)
        self._kv_tokens = kv_tokens
        self._engine_was_down = False

    def decided(self, trigger: Trigger, result: TriggerResult) -> None:
        """Send prefixes ahead after a decision, all current ones when the engine is back, and list the decision's prefix as in use."""
        if result.reason in _DOWN:
            self._engine_was_down = True
            self._prewarmer.prefixes.clear()
        # Without its usage where the stream was closed after the decision.
        elif (result.usage is not None or result.signal is not None) and result.prompt is not None and result.engine is not None:
            self._kv_tokens = result.engine.kv_capacity_tokens
            prefix = result.prompt.prefix
            self._store.used(result.engine.name, prefix.blocks[-1].key, prefix.recipe)
            if self._engine_was_down:
                self._engine_was_down = False
                self._prewarmer.warm_current(self._prompts.hottest())
            self._prewarmer.after_decision(trigger.lane.symbol, trigger.lane.interval)

    def check_capacity(self) -> None:
        """Compare the prefixes in use with the engine's KV capacity."""
        self._capacity.check(self._prompts.live_tokens, self._kv_tokens)
