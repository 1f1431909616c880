"""The closing checks: what must hold of every run, over what the topics hold and what the worker counted. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas import Outcome
from services.demo.results import Results
from services.fusion.deliver.accounts import Accounts

RECORD_ENDS: Final = ("folded", "duplicate", "filtered", "dead_lettered")


@dataclass(frozen=True, slots=True)
class Check:
    """One check: `ok` when it holds; `said` gives the numbers either way."""

    what: str
    said: str
    ok: bool


def closing_checks(accounts: Accounts, results: Results, inputs: int) -> list[Check]:
    """Return the checks; `inputs` is how many records the input topics gained while the worker ran."""
    ends = [accounts.records[end] for end in RECORD_ENDS]
    outcomes = {outcome.value: results.outcomes[outcome] for outcome in Outcome}
    audits, signals = results.audits.values(), results.signals
    published = [audit.signal_id for audit in audits if audit.outcome is Outcome.PUBLISHED]
    on_topic = sum(signal_id in signals for signal_id in published)
    failed = [audit for audit in audits if audit.outcome is Outcome.FAILED]
    failed_with_signal = sum(audit.signal_id is not None for audit in failed)
    expired = sum(signal.ts_decided_ms > signal.valid_until_ms for signal in signals.values())
    lanes, steps_back = _lane_order(results)
    return [
        Check(
            "every record was folded, ignored or dead-lettered",
            f"{inputs} = " + " + ".join(f"{count} {end}" for count, end in zip(ends, RECORD_ENDS, strict=True)),
            sum(accounts.records.values()) == sum(ends) == inputs,
        ),
        Check(
            "every trigger has one outcome in the audit",
            f"{accounts.triggers} = " + " + ".join(f"{count} {outcome}" for outcome, count in outcomes.items()),
            accounts.triggers == len(audits) == sum(outcomes.values()) and results.contradictions == 0,
        ),
        Check(
            "audit and worker count the same",
            f"{len(audits)} in the audit, {accounts.outcomes.total()} counted",
            all(accounts.outcomes[outcome] == count for outcome, count in outcomes.items()),
        ),
        Check(
            "every published outcome has its signal",
            f"{len(published)} published, {on_topic} of them on the topic",
            on_topic == len(published) == len(set(published)),
        ),
        Check("no failure became a signal", f"{len(failed)} failed, {failed_with_signal} of them with a signal", failed_with_signal == 0),
        Check("no signal left past its validity", f"{len(signals)} signals, {expired} of them past their validity", expired == 0),
        Check("no lane went back in time", f"{lanes} lanes, {steps_back} steps back", steps_back == 0),
    ]


def _lane_order(results: Results) -> tuple[int, int]:
    """Return how many lanes published, and how often a market offset fell: signals are kept in their topic's order."""
    newest: dict[tuple[str, str, str], int] = {}
    steps_back = 0
    for signal in results.signals.values():
        lane, offset = (signal.symbol, signal.interval, signal.mode), signal.as_of.market.offset
        steps_back += offset < newest.get(lane, -1)
        newest[lane] = max(offset, newest.get(lane, -1))
    return len(newest), steps_back
