"""Builds the report: what was judged, how it did, against what, and the sentence that sums it up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas import RunMode, SignalOutcome, interval_ms
from services.scoring.report import number_format
from services.scoring.report.baselines import buy_and_hold, random_traders
from services.scoring.report.breakdowns import breakdowns, calibration
from services.scoring.report.equity import exposure, over_time, per_position
from services.scoring.report.model import Counts, Curve, Money, Overlap, Random, Report, Verdict
from services.scoring.report.net_report import net
from services.scoring.report.prices import Prices
from services.scoring.report.random_orders import LEAST_BARS
from services.scoring.report.reliability import probabilities
from services.scoring.report.report_input import ReportInput
from services.scoring.report.statistics import block_length, bootstrap_mean, peak_open, uniqueness, wilson
from services.scoring.report.trades import Trades, count, distinct, r_multiples, trades_of
from services.scoring.report.verdict import FEW, reached

SEED: Final = 20_261_127
"""Of every draw: the same input makes the same report."""
_BPS: Final = 1e-4
_R_EDGES: Final = (-math.inf, -1.0, 0.0, 1.0, 2.0, math.inf)


@dataclass(frozen=True, slots=True)
class Judged:
    """What the verdict rests on."""

    outcomes: Sequence[SignalOutcome]
    """One a signal."""
    counts: Counts
    trades: Trades
    prices: Prices
    period: tuple[int, int] | None
    overlap: Overlap | None
    random: Random | None
    verdict: Verdict

    @property
    def block(self) -> int:
        """Return the length, in positions, of the blocks that a bootstrap draws."""
        return 1 if self.overlap is None else self.overlap.block


def judge(given: ReportInput, *, first_kind_alone: bool = False) -> Judged:
    """Return the verdict on `given` and what it rests on; with `first_kind_alone` by the first kind of random traders."""
    outcomes, duplicates = distinct(given.outcomes)
    counts, trades, prices = count(outcomes, duplicates), trades_of(outcomes), Prices(given.bars, given.restatements, given.max_jump)
    period, overlap = _period(outcomes, prices), _overlap(trades)
    block = 1 if overlap is None else overlap.block
    random = (
        None
        if period is None
        else random_traders(outcomes, trades, prices, *period, block=block, seed=SEED, first_kind_alone=first_kind_alone)
    )
    return Judged(outcomes, counts, trades, prices, period, overlap, random, reached(counts, overlap, random))


def build(given: ReportInput) -> Report:
    """Return the report on `given`; it is whole, and every number finite, whatever there is."""
    judged = judge(given)
    outcomes, counts, trades, prices, period = judged.outcomes, judged.counts, judged.trades, judged.prices, judged.period
    cost = 2 * given.cost_bps * _BPS
    won = trades.net[trades.completed] > 0
    completed_block = block_length(trades.entry_ms[trades.completed], trades.exit_ms[trades.completed])
    return Report(
        title=number_format.plain(given.title),
        head=_head(given, outcomes, period),
        banner=_banner(outcomes),
        cautions=(*_cautions(outcomes, counts, judged.overlap, judged.random), *_jump_cautions(counts, prices, period)),
        verdict=judged.verdict,
        counts=counts,
        hit_rate=wilson(int(np.count_nonzero(won)), len(won)),
        hit_rate_blocks=bootstrap_mean(won.astype(np.float64), block=completed_block, seed=SEED) if judged.block > 1 else None,
        money=_money(trades, judged.block, completed_block, period),
        overlap=judged.overlap,
        per_position=per_position(trades),
        over_time=Curve((), (), ()) if period is None else over_time(trades, prices, cost, *period),
        net=None if period is None else net(given, outcomes, prices, *period, seed=SEED),
        hold=None if period is None else buy_and_hold(prices, cost, *period),
        random=judged.random,
        random_missing=_why_no_random(trades, outcomes) if judged.random is None else "",
        calibration=calibration(outcomes, trades, judged.block, SEED),
        probabilities=probabilities(outcomes, SEED),
        breakdowns=breakdowns(outcomes, SEED),
    )


def _period(outcomes: Sequence[SignalOutcome], prices: Prices) -> tuple[int, int] | None:
    """Return the span of the outcomes, or of the closes where there are no outcomes; None when there is neither."""
    if not outcomes:
        return prices.span()
    starts = [one.ts_exit_ms if one.ts_entry_ms is None else min(one.ts_entry_ms, one.ts_exit_ms) for one in outcomes]
    return min(starts), max(one.ts_exit_ms for one in outcomes)


def _overlap(trades: Trades) -> Overlap | None:
    if len(trades) == 0:
        return None
    return Overlap(
        peak=peak_open(trades.entry_ms, trades.exit_ms),
        independent=max(1, round(float(uniqueness(trades.entry_ms, trades.exit_ms).sum()))),
        block=block_length(trades.entry_ms, trades.exit_ms),
    )


def _money(trades: Trades, block: int, completed_block: int, period: tuple[int, int] | None) -> Money:
    completed = trades.net[trades.completed]
    gains, losses = trades.net[trades.net > 0], trades.net[trades.net < 0]
    multiples = r_multiples(trades)
    return Money(
        expectancy=bootstrap_mean(trades.net, block=block, seed=SEED),
        expectancy_completed=bootstrap_mean(completed, block=completed_block, seed=SEED),
        mean_gain=float(gains.mean()) if len(gains) else None,
        mean_loss=float(losses.mean()) if len(losses) else None,
        profit_factor=float(gains.sum() / -losses.sum()) if len(losses) else None,
        r_multiple=bootstrap_mean(multiples, block=block, seed=SEED),
        r_counts=tuple(np.histogram(multiples, bins=_R_EDGES)[0].tolist()),
        exposure=None if period is None else exposure(trades, *period),
        mean_held_ms=float((trades.exit_ms - trades.entry_ms).mean()) if len(trades) else None,
    )


def _head(given: ReportInput, outcomes: Sequence[SignalOutcome], period: tuple[int, int] | None) -> tuple[tuple[str, str], ...]:
    symbols = sorted({one.symbol for one in outcomes} or set(given.bars))
    rows = {
        "Period": number_format.NONE if period is None else f"{number_format.moment(period[0])} to {number_format.moment(period[1])} UTC",
        "Symbols": f"{len(symbols)}: {number_format.listed(symbols)}" if symbols else number_format.NONE,
        "Intervals": number_format.listed(sorted({one.interval for one in outcomes}, key=interval_ms)),
        "Asked": number_format.listed(sorted({one.mode for one in outcomes})),
        "Answered by": _tally(Counter(one.source for one in outcomes)),
        "Run mode": _tally(Counter(one.run_mode.value for one in outcomes)),
        "Costs of the baselines": f"{given.cost_bps:g} basis points a side; the signals' returns are net of what the scorer charged",
    }
    facts = {number_format.plain(name[:1].upper() + name[1:]): number_format.plain(value) for name, value in given.facts.items()}
    return tuple((rows | facts).items())


def _tally(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} ({count:,})" for name, count in counts.most_common()) or number_format.NONE


def _banner(outcomes: Sequence[SignalOutcome]) -> str | None:
    stand_ins = [one.source for one in outcomes if one.source != "llm"]
    if not stand_ins:
        return None
    who = " and ".join({"simulator": "the simulator", "rules": "fixed rules"}[source] for source in sorted(set(stand_ins)))
    if len(stand_ins) == len(outcomes):
        return f"NO MODEL WAS ASKED. Every signal here came from {who}: this report says nothing about a language model's skill."
    return (
        f"NOT ALL ANSWERS ARE A MODEL'S. {len(stand_ins):,} of {len(outcomes):,} signals came from {who}; the figures over all signals "
        "mix them with the model's. The breakdown by source keeps them apart."
    )


def _cautions(outcomes: Sequence[SignalOutcome], counts: Counts, overlap: Overlap | None, random: Random | None) -> tuple[str, ...]:
    cautions = []
    if overlap is not None and overlap.independent < FEW:
        cautions.append(
            f"Few trades: {number_format.counted(counts.opened, 'position')}, about {overlap.independent} independent ones. "
            f"Below {FEW} every figure here may be luck."
        )
    if overlap is not None and overlap.block > 1:
        cautions.append(
            f"Positions overlap, up to {overlap.peak:,} at once: {counts.opened:,} of them are about {overlap.independent:,} independent "
            "ones. Intervals of means take that into account; those of hit rates (Wilson) do not."
        )
    if any(one.source == "llm" and one.run_mode in (RunMode.REPLAY, RunMode.DEMO) for one in outcomes):
        cautions.append(
            "These are past data. A language model may have read about this period while it was trained: only a period after the end "
            "of its training data can show skill."
        )
    if random is not None and random.positions < counts.opened:
        cautions.append(
            f"The random traders are compared with {random.positions:,} of {counts.opened:,} positions: for the others there are too few "
            "bars, or their outcomes do not say what was ordered."
        )
    if counts.unusable:
        cautions.append(
            f"{number_format.counted(counts.unusable, 'outcome')} left out of every figure: opened by what they say, but without a usable "
            "entry price, entry time or return."
        )
    if counts.duplicates:
        cautions.append(
            f"{number_format.counted(counts.duplicates, 'outcome')} dropped: the signal had one already, and the first is kept."
        )
    return tuple(cautions)


def _jump_cautions(counts: Counts, prices: Prices, period: tuple[int, int] | None) -> tuple[str, ...]:
    """Return what is to be said of jumps in the period; bars before it, which a backtest loads as history, are in no figure."""
    cautions = []
    for symbol, suspected in sorted(prices.suspected.items()):
        at_ms = [one for one in suspected if period is not None and period[0] <= one <= period[1]]
        if not at_ms:
            continue
        times = number_format.listed([f"{number_format.moment(one)} UTC" for one in at_ms])
        cautions.append(
            f"Prices of {number_format.plain(symbol)} jump at {times} without a split on record. The jump is taken as a split: no figure "
            "counts it as a gain or loss. Publish the split, or raise fusion.max_jump where the move was real."
        )
    if counts.unscored:
        cautions.append(
            f"{number_format.counted(counts.unscored, 'position')} held over such a jump: they have no return and are left out of every "
            "figure. If the move was real, their gains and losses are missing here."
        )
    return tuple(cautions)


def _why_no_random(trades: Trades, outcomes: Sequence[SignalOutcome]) -> str:
    if len(trades) == 0:
        return "No position was opened, so there is nothing to compare with random traders."
    if all(one.order is None for one in outcomes):
        return "No comparison with random traders: the outcomes do not say what was ordered. Judge the signals again with this version."
    return (
        f"No comparison with random traders: it takes more than {LEAST_BARS} closed bars in the period, of the positions' own symbols "
        "and intervals."
    )
