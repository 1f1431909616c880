"""The halt state: the `control` topic as a table that every worker reads in full; while it cannot be read, everything is HALTED."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
from pydantic import ValidationError

from schemas import Control, HaltState, RunMode, Topic, topic_name
from services.core import metrics
from services.core.bus import Bus, Record
from services.core.clock import Clock
from services.core.global_tables import GlobalTables
from services.core.operator_commands import GLOBAL

UNREADABLE_MS: Final = 5_000

_log = structlog.get_logger()


class ControlState:
    """Which symbols are halted. Run mode `live` starts halted until an operator's first resume of `global`."""

    def __init__(self, run_mode: RunMode) -> None:
        """Start as the run mode wants it."""
        self._states: dict[str, Control] = {}
        self._unset = HaltState.HALTED if run_mode is RunMode.LIVE else HaltState.ACTIVE
        self._halted_at_ms: int | None = None
        """When an operator halted everything; a halt that is repeated has held since the first one."""
        self.offset = -1
        """Of the last record taken in; -1 before the first."""

    def apply(self, control: Control) -> None:
        """Apply a record of the topic."""
        self._states[control.scope] = control
        if control.scope == GLOBAL:
            halted = control.state is HaltState.HALTED
            self._halted_at_ms = (self._halted_at_ms or control.ts_ms) if halted else None

    def unset(self, scope: str) -> None:
        """Forget a scope: its record was deleted."""
        self._states.pop(scope, None)
        if scope == GLOBAL:
            self._halted_at_ms = None

    def halted(self, symbol: str) -> str | None:
        """Return why `symbol` is halted, None when it is not."""
        held = self._states.get(GLOBAL)
        if (held.state if held else self._unset) is HaltState.HALTED:
            return held.reason if held else "live starts halted until an operator's first resume"
        held = self._states.get(symbol)
        return held.reason if held is not None and held.state is HaltState.HALTED else None

    def resumed_ms(self, symbol: str) -> int:
        """Return when an operator last resumed `symbol` by its name, 0 when none did: what its bars showed then was accepted."""
        held = self._states.get(symbol)
        return held.ts_ms if held is not None and held.state is HaltState.ACTIVE else 0

    def halted_since_ms(self, unset_since_ms: int) -> int | None:
        """Return since when everything is halted, None when it is not; without any record it is the run mode's, since `unset_since_ms`."""
        if GLOBAL in self._states:
            return self._halted_at_ms
        return unset_since_ms if self._unset is HaltState.HALTED else None

    @property
    def halted_symbols(self) -> list[str]:
        """Return the symbols halted by name."""
        return sorted(s for s, held in self._states.items() if s != GLOBAL and held.state is HaltState.HALTED)


class ControlTable:
    """Follows the `control` topic."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        run_mode: RunMode,
        client_id: str,
        on_change: Callable[[Control], None] | None = None,
    ) -> None:
        """Until `start` everything is halted. `on_change` is called with each record as it arrives, after it has been applied."""
        self.state = ControlState(run_mode)
        self._run_mode = run_mode
        self._clock = clock
        self._tables = GlobalTables(bus, clock, [topic_name(Topic.CONTROL, run_mode)], self._fold, client_id)
        self._started = False
        self._made_ms = clock.now_ms()
        self._on_change = on_change

    async def start(self) -> None:
        """Read the topic in full; raise BusError when it does not exist."""
        await self._tables.start()
        self._started = True

    async def follow(self) -> None:
        """Take in what arrives from now on; cancel to end."""
        await self._tables.follow()

    async def catch_up(self) -> None:
        """Read on to where the topic ends now."""
        await self._tables.catch_up()

    async def close(self) -> None:
        """Close."""
        await self._tables.close()

    @property
    def offset(self) -> int:
        """Return the offset of the last record taken in, -1 before the first."""
        return self.state.offset

    def update_gauges(self) -> None:
        """Show who is halted and for how long; a topic that cannot be read halts everything without a record."""
        now_ms = self._clock.now_ms()
        since_ms = self.state.halted_since_ms(self._made_ms)
        if since_ms is None and now_ms - self._tables.last_read_ms > UNREADABLE_MS:
            since_ms = self._tables.last_read_ms
        metrics.HALTED.set(since_ms is not None)
        metrics.HALTED_SECONDS.set(0 if since_ms is None else max(0, now_ms - since_ms) / 1000)
        metrics.HALTED_SYMBOLS.set(len(self.state.halted_symbols))

    def halted(self, symbol: str) -> str | None:
        """Return why `symbol` is halted, None when it is not."""
        silent_ms = self._clock.now_ms() - self._tables.last_read_ms
        if not self._started or silent_ms > UNREADABLE_MS:
            return f"control has been unreadable for {silent_ms} ms" if self._started else "control has not been read yet"
        return self.state.halted(symbol)

    def _fold(self, record: Record) -> None:
        self.state.offset = record.offset
        try:
            if record.value is None:
                self.state.unset((record.key or b"").decode(errors="replace"))
                return
            control = Control.decode(record.value)
        except ValidationError as error:
            _log.error("control_record_invalid", offset=record.offset, problem=error.errors()[0]["msg"])
            return
        if control.run_mode is not self._run_mode:
            _log.error("control_record_of_another_run_mode", offset=record.offset, run_mode=control.run_mode.value)
            return
        self.state.apply(control)
        _log.info("control", scope=control.scope, state=control.state.value, reason=control.reason, actor=control.actor)
        if self._on_change is not None:
            self._on_change(control)
