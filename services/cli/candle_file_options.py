"""The options of commands that read files of candles, and their help."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

SYMBOL_HELP: Final = (
    "The symbol with its venue (`AAPL.XNAS`), where no column says it; or what names in the file stand for "
    "(`BTC/USDT=BTC-USDT.BINA`, several with commas)."
)
TIME_ZONE_HELP: Final = (
    "Time zone of times that name none (`America/New_York`). Default: UTC for calendar `24x7`, else the exchange's or UTC, "
    "whichever lies in the calendar's sessions."
)
STAMP_HELP: Final = "Which end of its bar a time in the file is."
EXTENDED_HELP: Final = "Keep bars before and after the session, which are left out otherwise."


class Stamp(StrEnum):
    """Which end of its bar a time is."""

    OPEN = "open"
    CLOSE = "close"
