"""Clock skew between worker and broker, as the broker's append times in acknowledgements show it."""

from __future__ import annotations

from services.core import metrics


class SkewMeter:
    """Keeps the latest estimate. It is exact to within an acknowledgement's round trip: inside that, there is no skew to be seen."""

    def __init__(self) -> None:
        """Start with no skew known."""
        self.skew_ms = 0

    def seen(self, sent_ms: int, appended_ms: int, acknowledged_ms: int) -> None:
        """Take in one acknowledgement: both ends on the worker's clock, the append time on the broker's."""
        if appended_ms < sent_ms:
            self.skew_ms = sent_ms - appended_ms
        elif appended_ms > acknowledged_ms:
            self.skew_ms = acknowledged_ms - appended_ms
        else:
            self.skew_ms = 0
        metrics.CLOCK_SKEW_SECONDS.set(self.skew_ms / 1000)
