"""Compares the tokens of all live prefixes with the engine's KV capacity. When they do not fit, prefix hits collapse."""

from __future__ import annotations

import structlog

from services.core import metrics

_log = structlog.get_logger()


def fitting_window(window_bars: int, needed_tokens: int, capacity_tokens: int) -> int:
    """Return the window of bars at which prefixes that now need `needed_tokens` would fit into `capacity_tokens`, at least 1.

    A prefix's tokens are taken as proportional to its bars; what is fixed in it is small beside them.
    """
    return max(1, window_bars * capacity_tokens // max(1, needed_tokens))


class CapacityWatch:
    """Logs once when the prefixes no longer fit, and once when they fit again."""

    def __init__(self, window_bars: int, *, prewarm: bool) -> None:
        """With `prewarm` the engine holds a second prefix of every symbol: the next epoch's."""
        self._window_bars = window_bars
        self._copies = 2 if prewarm else 1
        self._short = False

    def check(self, live_tokens: int, capacity_tokens: int | None) -> None:
        """Compare; `capacity_tokens` is None until the engine has reported it."""
        metrics.LIVE_PREFIX_TOKENS.set(live_tokens)
        if capacity_tokens is None:
            return
        metrics.ENGINE_KV_TOKENS.set(capacity_tokens)
        needed = live_tokens * self._copies
        short = needed > capacity_tokens
        if short and not self._short:
            _log.warning(
                "prefixes_exceed_kv_capacity",
                needed_tokens=needed,
                capacity_tokens=capacity_tokens,
                window_bars=self._window_bars,
                window_bars_that_would_fit=fitting_window(self._window_bars, needed, capacity_tokens),
            )
        elif self._short and not short:
            _log.info("prefixes_fit_kv_capacity", needed_tokens=needed, capacity_tokens=capacity_tokens)
        self._short = short
