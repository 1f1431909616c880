"""The score: the report of `aquiline score report` on the outcomes in memory, for this run mode and the one beside it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from schemas import InstrumentEvent, RunMode, SignalOutcome
from services.console.models import Chance, Score, ScoreRow, ScoreSide, Series
from services.console.recent import Recent
from services.core.settings import ScoringSettings
from services.scoring.report.build import build
from services.scoring.report.model import Curve, Estimate, Report, Row
from services.scoring.report.report_input import ReportBar, ReportInput

MAX_OUTCOMES: Final = 5_000
"""Of a run mode, the newest: the report then takes some seconds of a thread."""
_MAX_POINTS: Final = 1_000
_SHOWN_TRADERS: Final = 400


class ScoreBuilder:
    """Builds the score when outcomes have come since the last time, in a thread, one at a time."""

    def __init__(self, recent: Recent, modes: Sequence[RunMode], settings: ScoringSettings) -> None:
        """`modes` are this run mode and, where there is one, the mode beside it."""
        self._recent = recent
        self._modes = modes
        self._cost_bps = settings.cost_bps + settings.slippage_bps
        self._built: dict[RunMode, tuple[int, ScoreSide]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def score(self, splits: Sequence[InstrumentEvent]) -> Score:
        """Return the score of every mode that has outcomes."""
        async with self._one_at_a_time:
            for mode in self._modes:
                count = self._recent.result_count(mode)
                if count and self._built.get(mode, (0, None))[0] != count:
                    given = self._input(mode, self._recent.results(mode)[-MAX_OUTCOMES:], splits)
                    self._built[mode] = count, await asyncio.to_thread(_side, mode, given)
        return Score(sides=[self._built[mode][1] for mode in self._modes if mode in self._built])

    def _input(self, mode: RunMode, outcomes: list[SignalOutcome], splits: Sequence[InstrumentEvent]) -> ReportInput:
        wanted = {(one.symbol, one.interval) for one in outcomes}
        bars: dict[str, list[ReportBar]] = defaultdict(list)
        for symbol, interval in self._recent.series():
            if (symbol, interval) in wanted:
                bars[symbol] += [
                    ReportBar(symbol, interval, one.ts_open_ms, one.ts_close_ms, one.open, one.high, one.low, one.close)
                    for one in self._recent.bars(symbol, interval)
                    if one.closed
                ]
        return ReportInput(mode.value, outcomes, bars, self._cost_bps, {}, splits)


def _side(mode: RunMode, given: ReportInput) -> ScoreSide:
    report = build(given)
    return ScoreSide(
        run_mode=mode,
        banner=report.banner,
        verdict=report.verdict.sentence,
        cautions=list(report.cautions),
        signals=report.counts.signals,
        opened=report.counts.opened,
        completed=report.counts.completed,
        hit_rate=_estimate(report.hit_rate),
        expectancy=_estimate(report.money.expectancy),
        equity=_series(report.over_time),
        drawdown=_thinned(report.over_time.drawdown),
        hold=None if report.hold is None else _series(report.hold.curve),
        strategy_mean=None if report.random is None else report.random.strategy,
        chance=_chance(report),
        chance_missing=report.random_missing,
        calibration=[_row(one) for one in report.calibration.buckets],
        calibration_sentence=report.calibration.sentence,
        breakdowns={one.by: [_row(row) for row in one.rows] for one in report.breakdowns},
    )


def _chance(report: Report) -> list[Chance]:
    kinds = () if report.random is None else report.random.kinds
    return [
        Chance(
            name=one.name,
            what=one.what,
            mean=one.mean,
            better_than=one.better_than,
            means=list(one.means[:: max(1, len(one.means) // _SHOWN_TRADERS)]),
        )
        for one in kinds
    ]


def _row(row: Row) -> ScoreRow:
    return ScoreRow(
        name=row.name,
        signals=row.signals,
        completed=row.completed,
        hit_rate=_estimate(row.hit_rate),
        mean_return=_estimate(row.mean_return),
    )


def _estimate(estimate: Estimate | None) -> tuple[float, float | None, float | None] | None:
    return None if estimate is None else (estimate.value, estimate.low, estimate.high)


def _series(curve: Curve) -> Series:
    return Series(at=[int(one) for one in _thinned(curve.at)], values=_thinned(curve.values))


def _thinned(values: Sequence[float]) -> list[float]:
    """Return at most a thousand of the values, the last one among them."""
    step = max(1, -(-len(values) // _MAX_POINTS))
    return [values[at] for at in sorted({*range(0, len(values), step), *([len(values) - 1] if values else [])})]
