"""The report's part on net positions: the signals played as one account, and the measures of its days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from schemas import SignalOutcome
from services.scoring.paper_position import Bar
from services.scoring.report.equity import curve
from services.scoring.report.measures import daily, measures
from services.scoring.report.model import Net
from services.scoring.report.net_instructions import instructions_of, net_bars
from services.scoring.report.net_positions import NetAccount, play
from services.scoring.report.prices import Prices
from services.scoring.report.report_input import ReportInput
from services.scoring.restatements import Restatements

_DAY_MS: Final = 86_400_000


def net_account(given: ReportInput, outcomes: Sequence[SignalOutcome], prices: Prices, start_ms: int, end_ms: int) -> NetAccount | None:
    """Return the account that follows the signals up to `end_ms`; None where no outcome says what was ordered, or there are no bars.

    A suspected split is taken as one, as the baselines take it.
    """
    instructions = instructions_of(outcomes, given.changes, given.bars)
    if not instructions:
        return None
    first_ms = min(one.at_ms for of_symbol in instructions.values() for one in of_symbol)
    bars, restatements = {}, {}
    for symbol in instructions:
        within = [bar for bar in net_bars(given.bars[symbol]) if bar.ts_open_ms >= first_ms and bar.ts_close_ms <= end_ms]
        known = restatements[symbol] = Restatements(event for event in given.restatements if event.symbol == symbol)
        bars[symbol] = [_whole(bar, prices.suspected_ratios(symbol), known) for bar in within]
    return play(instructions, bars, restatements, given.sizing, start_ms)


def _whole(bar: Bar, suspected: Mapping[int, float], known: Restatements) -> Bar:
    """Note a suspected split of this bar as from its open; of a bar with prices on both scales only the close is kept."""
    for effective_ms, ratio in suspected.items():
        if bar.ts_open_ms <= effective_ms < bar.ts_close_ms:
            known.add_split(bar.ts_open_ms, ratio)
            if effective_ms > bar.ts_open_ms:
                return bar._replace(open=bar.close, high=bar.close, low=bar.close)
    return bar


def net(given: ReportInput, outcomes: Sequence[SignalOutcome], prices: Prices, start_ms: int, end_ms: int, *, seed: int) -> Net | None:
    """Return what the report says of the net positions from `start_ms` to `end_ms`; None where they cannot be played."""
    account = net_account(given, outcomes, prices, start_ms, end_ms)
    if account is None:
        return None
    ends = {bar.ts_close_ms for of_symbol in given.bars.values() for bar in of_symbol if start_ms < bar.ts_close_ms <= end_ms}
    days = daily(account, np.array(sorted(ends), dtype=np.int64), end_ms) if ends else None
    held_ms = [trade.exit_ms - trade.entry_ms for trade in account.trades]
    at_ms, worth = np.array(account.at_ms, dtype=np.int64), np.array(account.equity)
    return Net(
        curve=curve(at_ms, worth - 1),
        positions=len(account.trades),
        no_room=account.no_room,
        costs=sum(fill.cost for fill in account.fills),
        largest=max(account.gross),
        measures=None if days is None else measures(days, float(np.mean(held_ms or [0])) / _DAY_MS, given.trials, seed),
    )
