"""The result of a backtest: decisions and outcomes as DataFrames, and the report."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from narwhals.typing import EagerAllowed
from rich.console import Console

from aquiline._frames import frame_of
from aquiline._results import decision_columns, outcome_columns
from schemas import AuditRecord, Cancel, Signal, SignalOutcome, decode_signal_message
from services.backtest.backtest_plan import BacktestPlan
from services.backtest.checkpoint import AUDIT, OUTCOMES, SIGNALS, Checkpoint, RunFolder, read_checkpoint
from services.backtest.run_report import report_input
from services.backtest.runner import BacktestRunner
from services.scoring.report import Report, build, to_html, to_terminal
from services.scoring.report.report_input import Trials

_WIDTH = 120


@dataclass(frozen=True, slots=True, repr=False)
class Backtest:
    """A backtest that has ended."""

    decisions: Any
    """As `aquiline.decisions` returns them."""
    outcomes: Any
    """As `aquiline.outcomes` returns them."""
    report: Report
    """Every figure, with its 95 % interval: `report.verdict.sentence`, `report.money.expectancy.value`."""

    @classmethod
    async def run(cls, plan: BacktestPlan, path: Path, library: EagerAllowed) -> Self:
        """Play a plan into a new folder; raise ValueError when it holds a run already, EngineDownError when the engine does not answer."""
        if read_checkpoint(path) is not None:
            raise ValueError(f"folder {str(path)!r} holds a run already; name a new one")
        with RunFolder(path, Checkpoint(plan.options, plan.fingerprint)) as folder:
            runner = BacktestRunner(plan, folder, lambda _: None, lambda: True)
            await runner.run()
            audits = [AuditRecord.decode(line) for line in folder.lines(AUDIT)]
            outcomes = [SignalOutcome.decode(line) for line in folder.lines(OUTCOMES)]
            signals, cancels = _by_id(folder)
            report = build(report_input(plan, runner, folder, Trials()))
        decided = decision_columns(audits, signals, cancels)
        return cls(frame_of(decided, library), frame_of(outcome_columns(outcomes), library), report)

    def __str__(self) -> str:
        """Return the report as text."""
        out = io.StringIO()
        to_terminal(self.report, Console(file=out, width=_WIDTH))
        return out.getvalue()

    def __repr__(self) -> str:
        counts = self.report.counts
        return f"<Backtest: {len(self.decisions):,} decisions, {counts.signals:,} to buy or sell. {self.report.verdict.sentence}>"

    def to_html(self, file: str | Path) -> None:
        """Write the report as one self-contained page (the extra `report`); raise ServiceError when a package of it is missing."""
        Path(file).write_text(to_html(self.report), encoding="utf-8")


def _by_id(folder: RunFolder) -> tuple[Mapping[UUID, Signal], Mapping[UUID, Cancel]]:
    """Return signals and cancels by signal id: the first of each, as a consumer keeps them."""
    signals: dict[UUID, Signal] = {}
    cancels: dict[UUID, Cancel] = {}
    for line in folder.lines(SIGNALS):
        message = decode_signal_message(line)
        if isinstance(message, Signal):
            signals.setdefault(message.signal_id, message)
        else:
            cancels.setdefault(message.signal_id, message)
    return signals, cancels
