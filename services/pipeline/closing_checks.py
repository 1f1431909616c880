"""What must hold of every run, however it went: sums over what the topics hold and the workers counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from schemas import Outcome
from services.core.folding.disposition import Disposition
from services.fusion.deliver.accounts import Accounts
from services.pipeline.outputs import Outputs, outcomes, published


class Check(NamedTuple):
    """One closing check: `ok` when it holds; `said` gives the numbers either way."""

    what: str
    said: str
    ok: bool


def closing_checks(accounts: Accounts, outputs: Outputs, inputs: int) -> list[Check]:
    """Return the checks; `inputs` is how many records the input topics gained while the workers ran."""
    audits, signals = outputs.audits.values(), outputs.signals
    ends = {end.value: accounts.records[end] for end in Disposition}
    counts = outcomes(audits)
    ended = {outcome.value: counts[outcome] for outcome in Outcome}
    published_ids = [audit.signal_id for audit in published(audits)]
    on_topic = sum(signal_id in signals for signal_id in published_ids)
    failed = [audit for audit in audits if audit.outcome is Outcome.FAILED]
    failed_with_signal = sum(audit.signal_id is not None for audit in failed)
    expired = sum(signal.ts_decided_ms > signal.valid_until_ms for signal in signals.values())
    newest: dict[tuple[str, str, str], int] = {}
    steps_back = 0
    for signal in signals.values():  # in their topic's order
        lane, offset = (signal.symbol, signal.interval, signal.mode), signal.as_of.market.offset
        steps_back += offset < newest.get(lane, -1)
        newest[lane] = max(offset, newest.get(lane, -1))
    return [
        Check(
            "every record was folded, ignored or dead-lettered",
            f"{inputs} = {_sum_of(ends)}",
            accounts.records.total() == sum(ends.values()) == inputs,
        ),
        Check(
            "every trigger has one outcome in the audit",
            f"{accounts.triggers} = {_sum_of(ended)}",
            accounts.triggers == len(audits) == sum(ended.values()) and outputs.contradictions == 0,
        ),
        Check(
            "audit and worker count the same",
            f"{len(audits)} in the audit, {accounts.outcomes.total()} counted",
            all(accounts.outcomes[outcome] == count for outcome, count in ended.items()),
        ),
        Check(
            "every published outcome has its signal",
            f"{len(published_ids)} published, {on_topic} of them on the topic",
            on_topic == len(published_ids) == len(set(published_ids)),
        ),
        Check("no failure became a signal", f"{len(failed)} failed, {failed_with_signal} of them with a signal", failed_with_signal == 0),
        Check("no signal left past its validity", f"{len(signals)} signals, {expired} of them past their validity", expired == 0),
        Check("no lane went back in time", f"{len(newest)} lanes, {steps_back} steps back", steps_back == 0),
    ]


def _sum_of(counts: Mapping[str, int]) -> str:
    return " + ".join(f"{count} {name}" for name, count in counts.items())
