"""How the report says figures: with no more digits than their interval allows, and never a NaN."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from typing import Final

from services.scoring.report.model import Estimate

NONE: Final = "-"
_DAY_MS: Final = 86_400_000
_LISTED: Final = 6


def plain(text: str) -> str:
    """Return text that came from outside on one line, with nothing that a terminal or a page would act on."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


def change(value: float | None, digits: int = 2) -> str:
    """Return a return as a signed percentage: `+0.34 %`."""
    return NONE if value is None else f"{_rounded(value * 100, digits):+.{digits}f} %"


def share(value: float | None, of: int) -> str:
    """Return a share as a percentage, in whole per cent below a thousand cases."""
    return NONE if value is None else f"{value:.{_share_digits(of)}%}".replace("%", " %")


def hit_rate(estimate: Estimate | None, of: int) -> str:
    """Return a share with its interval: `53 % (43 to 62)`."""
    if estimate is None:
        return NONE
    digits = _share_digits(of)
    return share(estimate.value, of) + _interval(estimate, digits, signed=False)


def mean_return(estimate: Estimate | None) -> str:
    """Return a mean return with its interval, in digits that the interval's width allows: `+0.34 % (-0.46 to +1.14)`."""
    if estimate is None:
        return NONE
    digits = _digits(estimate)
    return change(estimate.value, digits) + _interval(estimate, digits, signed=True)


def figure(estimate: Estimate | None, unit: str = "", digits: int = 2) -> str:
    """Return a plain figure with its interval: `0.84 (-0.31 to 1.92)`, from 100 on without decimals."""
    if estimate is None:
        return NONE
    digits = 0 if abs(estimate.value) >= 100 else digits  # noqa: PLR2004 - a turnover of 2,044.72 has two digits too many
    value = f"{_rounded(estimate.value, digits):,.{digits}f}{f' {unit}' if unit else ''}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({_rounded(estimate.low, digits):,.{digits}f} to {_rounded(estimate.high, digits):,.{digits}f})"


def correlation(estimate: Estimate | None) -> str:
    """Return a correlation with its interval: `+0.12 (-0.08 to +0.31)`."""
    if estimate is None:
        return NONE
    text = f"{_rounded(estimate.value, 2):+.2f}"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} ({_rounded(estimate.low, 2):+.2f} to {_rounded(estimate.high, 2):+.2f})"


def percentile(better_than: float) -> str:
    """Return a share of random traders, in whole per cent where none of 1 % and less is left: `43 %`, `99.4 %`, `all`."""
    if better_than in (0, 1):
        return "all" if better_than else "none"
    if min(better_than, 1 - better_than) >= 0.01:  # noqa: PLR2004 - 99.4 % must not read 99 %, nor 100 %
        return f"{better_than:.0%}".replace("%", " %")
    return f"{min(0.999, max(0.001, better_than)):.1%}".replace("%", " %")


def moment(at_ms: int) -> str:
    """Return an instant in UTC, its time of day left out at midnight."""
    at = dt.datetime.fromtimestamp(at_ms / 1_000, dt.UTC)
    return at.strftime("%Y-%m-%d") if at_ms % _DAY_MS == 0 else at.strftime("%Y-%m-%d %H:%M")


def length(ms: float | None) -> str:
    """Return a span of time in the unit that suits it."""
    if ms is None:
        return NONE
    for unit, unit_ms in (("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000)):
        if ms >= 2 * unit_ms:
            return f"{ms / unit_ms:.1f} {unit}"
    return f"{ms / 1_000:.0f} seconds"


def listed(names: Iterable[str]) -> str:
    """Return names as a list, the first few of very many."""
    every = list(names)
    if len(every) <= _LISTED:
        return ", ".join(every) or NONE
    return f"{', '.join(every[: _LISTED - 1])} and {len(every) - _LISTED + 1} more"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 trade`, `1,200 trades`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _interval(estimate: Estimate, digits: int, *, signed: bool) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    sign = "+" if signed else ""
    low, high = (_rounded(end * 100, digits) for end in (estimate.low, estimate.high))
    return f" ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


def _digits(estimate: Estimate) -> int:
    """Return how many digits of a percentage the width of its interval leaves a meaning: two of the width's own."""
    if estimate.low is None or estimate.high is None:
        return 1
    half = (estimate.high - estimate.low) * 50
    return 2 if half <= 0 else max(0, min(4, 1 - math.floor(math.log10(half))))


def _share_digits(of: int) -> int:
    return 0 if of < 1_000 else 1  # noqa: PLR2004 - below it a case is more than a tenth of a per cent


def _rounded(value: float, digits: int) -> float:
    """Return the rounded value, without a sign when it is zero: `-0.00 %` says a loss where there is none to speak of."""
    return round(value, digits) + 0.0
