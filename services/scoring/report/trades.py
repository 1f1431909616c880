"""From outcomes to positions: one a `signal_id`, those that were opened as arrays in order of time, the others counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from schemas import Action, ExitReason, SignalOutcome
from services.scoring.judge import COMPLETED
from services.scoring.report.model import Counts
from services.scoring.report.statistics import Floats, Times


@dataclass(frozen=True, slots=True)
class Trades:
    """The opened positions, ordered by entry, then exit, symbol and id; the arrays have one element each."""

    outcomes: tuple[SignalOutcome, ...]
    side: Floats
    """1 for a buy, -1 for a sell."""
    entry_ms: Times
    exit_ms: Times
    entry: Floats
    net: Floats
    conviction: Floats
    bars_held: NDArray[np.int64]
    completed: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.outcomes)


def distinct(outcomes: Iterable[SignalOutcome]) -> tuple[list[SignalOutcome], int]:
    """Return the first outcome of each `signal_id` and how many further ones there were."""
    first: dict[UUID, SignalOutcome] = {}
    count = 0
    for outcome in outcomes:
        count += 1
        first.setdefault(outcome.signal_id, outcome)
    return list(first.values()), count - len(first)


def opened(outcome: SignalOutcome) -> bool:
    """Return whether a position was opened, and how it did is known."""
    return (
        outcome.exit_reason is not ExitReason.UNFILLED
        and outcome.return_net is not None
        and outcome.entry is not None
        and float(outcome.entry) > 0
        and outcome.ts_entry_ms is not None
        and outcome.ts_entry_ms <= outcome.ts_exit_ms
    )


def unusable(outcome: SignalOutcome) -> bool:
    """Return whether a position was opened by what the outcome says, but not how it did."""
    claims = outcome.exit_reason in COMPLETED or outcome.ts_entry_ms is not None or outcome.return_net is not None
    return claims and outcome.exit_reason is not ExitReason.UNFILLED and not opened(outcome)


def count(outcomes: Sequence[SignalOutcome], duplicates: int) -> Counts:
    """Return where the signals went; `outcomes` are distinct by id."""
    early: Counter[ExitReason] = Counter()
    never: Counter[ExitReason] = Counter()
    completed: Counter[ExitReason] = Counter()
    unscored = lost = 0
    for outcome in outcomes:
        if outcome.unscored_reason is not None:
            unscored += 1
        elif unusable(outcome):
            lost += 1
        elif not opened(outcome):
            never[outcome.exit_reason] += 1
        elif outcome.exit_reason in COMPLETED:
            completed[outcome.exit_reason] += 1
        else:
            early[outcome.exit_reason] += 1
    return Counts(
        signals=len(outcomes),
        completed_by=dict(sorted(completed.items())),
        closed_early=dict(sorted(early.items())),
        never_opened=dict(sorted(never.items())),
        unscored=unscored,
        unusable=lost,
        duplicates=duplicates,
    )


def trades_of(outcomes: Iterable[SignalOutcome]) -> Trades:
    """Return the opened positions among `outcomes`, which are distinct by id."""
    held = sorted(
        (outcome for outcome in outcomes if opened(outcome)),
        key=lambda one: (one.ts_entry_ms, one.ts_exit_ms, one.symbol, one.signal_id),
    )
    return Trades(
        outcomes=tuple(held),
        side=np.array([1.0 if one.action is Action.BUY else -1.0 for one in held], dtype=np.float64),
        entry_ms=np.array([one.ts_entry_ms for one in held], dtype=np.int64),
        exit_ms=np.array([one.ts_exit_ms for one in held], dtype=np.int64),
        entry=np.array([float(one.entry or 0) for one in held], dtype=np.float64),
        net=np.array([one.return_net for one in held], dtype=np.float64),
        conviction=np.array([one.conviction for one in held], dtype=np.float64),
        bars_held=np.array([one.bars_held for one in held], dtype=np.int64),
        completed=np.array([one.exit_reason in COMPLETED for one in held], dtype=np.bool_),
    )


def r_multiples(trades: Trades) -> Floats:
    """Return the net returns in units of what each position risked, from its entry to its stop; (n,), without those that say no stop."""
    found = []
    for outcome, entry, net in zip(trades.outcomes, trades.entry.tolist(), trades.net.tolist(), strict=True):
        risked = 0.0 if outcome.order is None else abs(entry - float(outcome.order.stop))
        if risked > 0:
            found.append(net * entry / risked)
    return np.array(found, dtype=np.float64)
