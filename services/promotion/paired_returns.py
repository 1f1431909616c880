"""What both sides made on the same records: pairs that are old enough to be judged, whatever became of them, and their difference. Pure.

Pairs of the last horizon are left out as a whole. Of those, quick losses and gains are known before the slow positions, and a comparison
that took what is known would favour the side that ends its positions early.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from schemas import Action
from services.promotion.audit_summary import AuditSummary
from services.promotion.comparison_result import Returns
from services.promotion.decision_pairs import Pair, SideRecords
from services.scoring.report.statistics import block_length, bootstrap_mean

_SEED: Final = 7


def paired_returns(decided: Sequence[Pair], live: SideRecords, shadow: SideRecords) -> Returns | None:
    """Return how the matured pairs did in which a side wanted a position; None where a side that did was never scored.

    A pair is matured once the longest horizon of all has passed since its record, in market time.
    """
    wanted = [pair for pair in decided if _opens(pair.live) or _opens(pair.shadow)]
    for records, of_side in ((live, [pair.live for pair in wanted]), (shadow, [pair.shadow for pair in wanted])):
        if any(map(_opens, of_side)) and not any(one.signal_id in records.scored for one in of_side):
            return None
    now_ms = max((one.ts_event_ms for records in (live, shadow) for one in records.summaries), default=0)
    longest_ms = max((_horizon_ms(one, of) for pair in wanted for one, of in ((pair.live, live), (pair.shadow, shadow))), default=0)
    matured = [pair for pair in wanted if pair.live.ts_event_ms + longest_ms <= now_ms]
    rows, unscored = [], 0
    for pair in matured:
        if not (_judged(pair.live, live) and _judged(pair.shadow, shadow)):
            unscored += 1
            continue
        ours, theirs = _made(pair.live, live), _made(pair.shadow, shadow)
        if ours is not None and theirs is not None:
            rows.append((ours[0], theirs[0], pair.live.ts_event_ms, max(ours[1], theirs[1])))
    if not rows:
        return Returns(matured=len(matured), unscored=unscored, pairs=0)
    ours_net, theirs_net, start_ms, end_ms = (np.asarray(column) for column in zip(*rows, strict=True))
    block = block_length(start_ms.astype(np.int64), end_ms.astype(np.int64))
    difference = bootstrap_mean(theirs_net - ours_net, block=block, seed=_SEED)
    assert difference is not None  # noqa: S101 - there are rows
    return Returns(
        matured=len(matured),
        unscored=unscored,
        pairs=len(rows),
        live_mean=float(ours_net.mean()),
        shadow_mean=float(theirs_net.mean()),
        difference=difference.value,
        low=difference.low,
        high=difference.high,
    )


def _opens(one: AuditSummary) -> bool:
    return one.action in {Action.BUY, Action.SELL}


def _horizon_ms(one: AuditSummary, records: SideRecords) -> int:
    """Return for how long the view of a decision is, 0 where it wants no position or the signal is no longer on its topic."""
    if not _opens(one) or one.signal_id is None:
        return 0
    outcome = records.scored.get(one.signal_id)
    ends_ms = records.horizons_ms.get(one.signal_id, 0 if outcome is None else outcome.ts_exit_ms)
    return max(0, ends_ms - one.ts_event_ms)


def _judged(one: AuditSummary, records: SideRecords) -> bool:
    return not _opens(one) or (one.signal_id is not None and one.signal_id in records.scored)


def _made(one: AuditSummary, records: SideRecords) -> tuple[float, int] | None:
    """Return the return of a decision and its exit time: 0 where no position was opened; None over a suspected split."""
    if not _opens(one) or one.signal_id is None:
        return 0.0, one.ts_event_ms
    outcome = records.scored[one.signal_id]
    return None if outcome.unscored_reason is not None else (outcome.return_net or 0.0, outcome.ts_exit_ms)
