"""The report's tables in words, in the order in which they are read: what the terminal prints and the page sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas import ExitReason
from services.scoring.report import number_format
from services.scoring.report.measures import LEAST_DAYS
from services.scoring.report.model import Breakdown, Curve, Report, Row

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
        hold(report),
        measures(report),
        random(report),
        calibration(report),
        probabilities(report),
        *(breakdown(report, part) for part in report.breakdowns),
    )


@dataclass(frozen=True, slots=True)
class Tile:
    """One of the few figures that are seen first."""

    name: str
    value: str
    more: str


def tiles(report: Report) -> tuple[Tile, ...]:
    """Return the figures that are seen first; none where no position was opened."""
    if not report.counts.opened:
        return ()
    found = [
        Tile("Positions", f"{report.counts.opened:,}", f"of {number_format.counted(report.counts.signals, 'signal')}"),
        _tile("Hit rate", number_format.hit_rate(report.hit_rate, report.counts.completed)),
        _tile("Mean net return", number_format.mean_return(report.money.expectancy)),
    ]
    if report.net is not None:
        fall = number_format.change(report.net.curve.worst)
        found.append(Tile("Return on capital", number_format.change(report.net.curve.final), f"largest drawdown {fall}"))
        if report.net.measures is not None and report.net.measures.sharpe is not None:
            found.append(_tile("Sharpe ratio", number_format.figure(report.net.measures.sharpe)))
    if report.hold is not None:
        fall = number_format.change(report.hold.curve.worst)
        found.append(Tile("Buy and hold", number_format.change(report.hold.curve.final), f"largest drawdown {fall}"))
    return tuple(found)


def _tile(name: str, text: str) -> Tile:
    value, _, interval = text.partition(" (")
    return Tile(name, value, f"95 %: {interval.removesuffix(')')}" if interval else "")


def counts(report: Report) -> Sheet:
    """Return where the signals went."""
    counted = report.counts
    rows = [
        ("signals to buy or sell", f"{counted.signals:,}"),
        *_reasons("completed", counted.completed_by),
        *_reasons("closed early", counted.closed_early),
        *_reasons("never opened", counted.never_opened),
    ]
    if counted.unscored:
        rows.append(("held over a suspected split", f"{counted.unscored:,}"))
    if counted.unusable:
        rows.append(("unusable", f"{counted.unusable:,}"))
    note = "The hit rate is of completed positions alone. Money is counted over every position that was opened, however it ended."
    return Sheet("counts", "Where the signals went", note, (), tuple(rows))


def figures(report: Report) -> Sheet:
    """Return the figures."""
    money, overlap = report.money, report.overlap
    rows = [("hit rate (completed positions; Wilson)", number_format.hit_rate(report.hit_rate, report.counts.completed))]
    if report.hit_rate_blocks is not None:
        rows.append(
            ("hit rate, overlap counted in (block bootstrap)", number_format.hit_rate(report.hit_rate_blocks, report.counts.completed))
        )
    rows += [
        ("expectancy: mean net return of an opened position", number_format.mean_return(money.expectancy)),
        ("the same of completed positions", number_format.mean_return(money.expectancy_completed)),
        ("mean gain, mean loss", f"{number_format.change(money.mean_gain)}, {number_format.change(money.mean_loss)}"),
        ("gains over losses (profit factor)", number_format.NONE if money.profit_factor is None else f"{money.profit_factor:.2f}"),
        ("net return in units of the risk to the stop (R)", number_format.figure(money.r_multiple, unit="R")),
        ("positions at -1 R or less, to 0, to +1, to +2, above", ", ".join(f"{number:,}" for number in money.r_counts)),
        ("held on average", number_format.length(money.mean_held_ms)),
    ]
    if overlap is not None:
        rows += [
            ("open at once, at most", f"{overlap.peak:,}"),
            ("effective number of independent positions, about", f"{overlap.independent:,}"),
        ]
    return Sheet("figures", "How they did", "In brackets: 95 % intervals.", (), tuple(rows))


def hold(report: Report) -> Sheet:
    """Return what the capital made, traded in three ways: net positions, each signal on its own, and buying and holding."""
    rows = []
    if report.net is not None:
        exposure = None if report.net.measures is None else report.net.measures.exposure
        rows.append(_capital("the strategy, one position a symbol", report.net.curve, None if exposure is None else exposure.value))
    if report.counts.opened:
        rows.append(_capital("each signal on its own, gains not reinvested", report.over_time, report.money.exposure))
    if report.hold is not None:
        rows.append(_capital("buy and hold, equal parts", report.hold.curve, 1.0))
    note = "" if report.hold is not None else "Nothing to hold: there are no closed bars of the period."
    header = ("", "return on capital", "largest drawdown", "capital in positions")
    return Sheet("hold", "Against buying and holding", note, header if rows else (), tuple(rows))


def _capital(name: str, of: Curve, invested: float | None) -> tuple[str, str, str, str]:
    return name, number_format.change(of.final), number_format.change(of.worst), number_format.share(invested, 1)


def measures(report: Report) -> Sheet:
    """Return the measures of the net positions."""
    if report.net is None:
        return Sheet("measures", "As one account", "The outcomes do not say what was ordered, or there are no closed bars.", (), ())
    rows = [
        ("positions", f"{report.net.positions:,}"),
        ("filled without room for a position", f"{report.net.no_room:,}"),
        ("costs paid, of the starting capital", number_format.share(report.net.costs, 1_000)),
        ("largest exposure at a close", number_format.share(report.net.largest, 1)),
    ]
    found = report.net.measures
    note = "In brackets: 95 % intervals, by a bootstrap of blocks of days."
    if found is None:
        note = f"No ratios: they take at least {LEAST_DAYS} days."
    else:
        rows += [
            ("return a year", number_format.mean_return(found.annual_return)),
            ("Sharpe ratio", number_format.figure(found.sharpe)),
            ("Sortino ratio", number_format.figure(found.sortino)),
            ("Calmar ratio", number_format.figure(found.calmar)),
            ("turnover a year, times the equity", number_format.figure(found.turnover)),
            ("exposure, mean", number_format.hit_rate(found.exposure, 1_000)),
        ]
        if found.deflated is not None:
            tried = number_format.counted(found.deflated.trials, "trial")
            rows.append(
                (f"deflated Sharpe ratio: probability of more than luck, {tried}", number_format.percentile(found.deflated.probability))
            )
            if found.deflated.trials > 1:
                rows.append(
                    (f"Sharpe ratio expected of the best of {found.deflated.trials:,} without skill", f"{found.deflated.expected_best:.2f}")
                )
    return Sheet("measures", "As one account", note, (), tuple(rows))


def random(report: Report) -> Sheet:
    """Return how random traders did."""
    if report.random is None:
        return Sheet("random", "Against random traders", report.random_missing, (), ())
    rows = [
        (kind.name, f"{len(kind.means):,}", number_format.change(kind.mean, 3), number_format.percentile(kind.better_than))
        for kind in report.random.kinds
    ]
    rows.append(("the strategy", "", number_format.change(report.random.strategy, 3), ""))
    header = ("", "traders", "mean net return of a position", "the strategy is better than")
    return Sheet("random", "Against random traders", "", header, tuple(rows))


def calibration(report: Report) -> Sheet:
    """Return how conviction went with outcome."""
    rows = tuple(map(_row, report.calibration.buckets))
    return Sheet("calibration", "Conviction", report.calibration.sentence, ("conviction", *_ROW_HEADER), rows)


def probabilities(report: Report) -> Sheet:
    """Return how good the probabilities were; without rows where no signal carries any."""
    found = report.probabilities
    if found is None:
        return Sheet("probabilities", "Probabilities", "", (), ())
    brier, log_loss = (number_format.figure(one, digits=3) for one in (found.brier, found.log_loss))
    note = (
        f"{number_format.counted(found.count, 'completed position')}: Brier score {brier}, log loss {log_loss}; the lower, the better. "
        f"Always saying the share that gained has a Brier score of {found.base_brier:.3f}."
    )
    rows = tuple(
        (one.name, f"{one.count:,}", number_format.share(one.forecast, 1), number_format.hit_rate(one.gained, one.count))
        for one in found.bins
    )
    return Sheet("probabilities", "Probabilities", note, ("probability", "completed", "said on average", "gained (95 %)"), rows)


def breakdown(report: Report, part: Breakdown) -> Sheet:
    """Return one breakdown; beside symbols, what holding each would have made."""
    header: tuple[str, ...] = (part.by, *_ROW_HEADER)
    rows: tuple[tuple[str, ...], ...] = tuple(map(_row, part.rows))
    if part.by == "symbol" and report.hold is not None:
        header = (*header, "buy and hold")
        rows = tuple((*row, number_format.change(report.hold.by_symbol.get(row[0]))) for row in rows)
    return Sheet(f"by-{part.by.replace(' ', '-')}", f"By {part.by}", "", header, rows)


def _row(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.signals:,}",
        f"{row.opened:,}",
        f"{row.completed:,}",
        number_format.hit_rate(row.hit_rate, row.completed),
        number_format.mean_return(row.mean_return),
    )


def _reasons(what: str, of: Mapping[ExitReason, int]) -> list[tuple[str, str]]:
    return [(f"{what}: {reason.value}", f"{number:,}") for reason, number in of.items()] or [(what, "0")]
