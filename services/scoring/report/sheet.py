"""The report's tables in words, in the order in which they are read: what the terminal prints and the page sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas import ExitReason
from services.scoring.report import words
from services.scoring.report.model import Breakdown, Report, Row

_ROW_HEADER: Final = ("signals", "opened", "completed", "hit rate (95 %)", "mean net return (95 %)")


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table with its title and, where there is something to explain, a note."""

    name: str
    title: str
    note: str
    header: tuple[str, ...]
    """Empty for a table of names and values."""
    rows: tuple[tuple[str, ...], ...]
    numbers: bool = True
    """Whether all columns but the first are figures."""


def tables(report: Report) -> tuple[Sheet, ...]:
    """Return every table of the report."""
    return (
        Sheet("head", "What was judged", "", (), report.head, numbers=False),
        counts(report),
        figures(report),
        baselines(report),
        calibration(report),
        *(breakdown(part) for part in report.breakdowns),
    )


def counts(report: Report) -> Sheet:
    """Return where the signals went."""
    counted = report.counts
    early = sum(counted.closed_early.values())
    never = sum(counted.never_opened.values())
    rows = [
        ("signals", f"{counted.signals:,}"),
        ("completed: target, stop or horizon", f"{counted.completed:,}"),
        (f"closed early{_reasons(counted.closed_early)}", f"{early:,}"),
        (f"never opened{_reasons(counted.never_opened)}", f"{never:,}"),
    ]
    if counted.unusable:
        rows.append(("unusable", f"{counted.unusable:,}"))
    note = "The hit rate is of completed positions alone. Money is counted over every position that was opened, however it ended."
    return Sheet("counts", "Where the signals went", note, (), tuple(rows))


def figures(report: Report) -> Sheet:
    """Return the figures."""
    money, overlap = report.money, report.overlap
    rows = [("hit rate (completed positions; Wilson)", words.hit_rate(report.hit_rate, report.counts.completed))]
    if report.hit_rate_blocks is not None:
        rows.append(("hit rate, overlap counted in (block bootstrap)", words.hit_rate(report.hit_rate_blocks, report.counts.completed)))
    rows += [
        ("expectancy: mean net return of an opened position", words.mean_return(money.expectancy)),
        ("the same of completed positions", words.mean_return(money.expectancy_completed)),
        ("mean gain, mean loss", f"{words.change(money.mean_gain)}, {words.change(money.mean_loss)}"),
        ("gains over losses (profit factor)", words.NONE if money.profit_factor is None else f"{money.profit_factor:.2f}"),
        ("held on average", words.length(money.mean_held_ms)),
    ]
    if overlap is not None:
        rows += [
            ("open at once, at most", f"{overlap.peak:,}"),
            ("worth, in positions that stand alone, about", f"{overlap.independent:,}"),
        ]
    if report.counts.opened:
        rows += [
            ("made, of the capital", words.change(report.over_time.final)),
            ("largest drawdown", words.change(report.over_time.worst)),
            ("capital's time in positions", words.share(money.exposure, 1)),
        ]
    return Sheet("figures", "How they did", "In brackets: 95 % intervals.", (), tuple(rows))


def baselines(report: Report) -> Sheet:
    """Return what no skill would have made."""
    rows: list[tuple[str, ...]] = []
    if report.hold is not None:
        rows.append(("buy and hold, equal parts", words.change(report.hold.curve.final), words.change(report.hold.curve.worst), ""))
    if report.counts.opened:
        rows.append(
            (
                "the strategy",
                words.change(report.over_time.final),
                words.change(report.over_time.worst),
                words.change(report.money.expectancy.value if report.money.expectancy else None, 3),
            )
        )
    rows += [
        (f"{kind.name}: strategy {words.percentile(kind.better_than, len(kind.means))}", "", "", words.change(kind.mean, 3))
        for kind in (report.random.kinds if report.random else ())
    ]
    header = ("", "made, of the capital", "largest drawdown", "mean net return of a position")
    return Sheet("baselines", "Against no skill at all", report.random_missing, header if rows else (), tuple(rows))


def calibration(report: Report) -> Sheet:
    """Return how conviction went with outcome."""
    rows = tuple(map(_row, report.calibration.buckets))
    return Sheet("calibration", "Conviction", report.calibration.sentence, ("conviction", *_ROW_HEADER), rows)


def breakdown(part: Breakdown) -> Sheet:
    """Return one breakdown."""
    return Sheet(f"by-{part.by.replace(' ', '-')}", f"By {part.by}", "", (part.by, *_ROW_HEADER), tuple(map(_row, part.rows)))


def _row(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.signals:,}",
        f"{row.opened:,}",
        f"{row.completed:,}",
        words.hit_rate(row.hit_rate, row.completed),
        words.mean_return(row.mean_return),
    )


def _reasons(of: Mapping[ExitReason, int]) -> str:
    return f": {', '.join(f'{reason.value} {number:,}' for reason, number in of.items())}" if of else ""
