"""Gathers what the report on a backtest is made from: the outcomes and signals in its folder, the bars that it played, its settings."""

from __future__ import annotations

from collections.abc import Iterator

from schemas import Action, Signal, SignalOutcome, decode_signal_message
from services.backtest.backtest_plan import BacktestPlan
from services.backtest.checkpoint import OUTCOMES, SIGNALS, Checkpoint, RunFolder
from services.backtest.runner import BacktestRunner
from services.core.restatement import restating
from services.scoring.report import ReportInput
from services.scoring.report.position_sizing import Sizing
from services.scoring.report.report_input import Trials


def report_input(plan: BacktestPlan, runner: BacktestRunner, folder: RunFolder, trials: Trials) -> ReportInput:
    """Return what the report on a run that has ended is made from; `trials` were run before on the same data."""
    scoring = plan.settings.scoring
    return ReportInput(
        title=f"Backtest on {plan.feed.name}",
        outcomes=[SignalOutcome.decode(line) for line in folder.lines(OUTCOMES)],
        bars=runner.bars,
        cost_bps=scoring.cost_bps + scoring.slippage_bps,
        facts=dict(_facts(plan, runner, folder.checkpoint)),
        restatements=restating(plan.feed.restatements, {one.symbol: one for one in plan.feed.instruments}),
        max_jump=plan.settings.fusion.max_jump,
        changes=list(_changes(folder)),
        sizing=Sizing.of(plan.settings.positions),
        trials=trials,
    )


def _changes(folder: RunFolder) -> Iterator[Signal]:
    """Yield the signals to exit or hold, which the net positions follow and no outcome tells of."""
    for line in folder.lines(SIGNALS):
        message = decode_signal_message(line)
        if isinstance(message, Signal) and message.action in {Action.EXIT, Action.HOLD}:
            yield message


def _facts(plan: BacktestPlan, runner: BacktestRunner, checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    fusion, scoring = plan.settings.fusion, plan.settings.scoring
    yield "Data", f"{plan.feed.name}: {plan.feed.total:,} {plan.feed.unit} of {len(plan.feed.instruments)} symbols"
    yield "Engine", checkpoint.engine
    yield "Prompt", f"{', '.join(fusion.intervals)}; window {fusion.window_bars} bars, epoch {fusion.epoch_slots} slots"
    yield "Triggers", ", ".join(f"{count:,} {ended}" for ended, count in sorted(checkpoint.outcomes.items(), key=lambda one: -one[1]))
    yield "Open at the end", f"{runner.judges.open_signals} signals without an outcome"
    yield "Fills", "from the next bar on; at its open where not worse than the entry; both levels in one bar count as the stop"
    yield "Costs of signals", f"{scoring.cost_bps:g} bp a side, {scoring.slippage_bps:g} bp slippage a fill at the market; no market impact"
    yield "Time", "each decision at the end of its bar; the clock stands still while the engine answers"
