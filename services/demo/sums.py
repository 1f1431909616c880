"""The closing sums: what must hold of every run, checked over what the topics hold against what the services counted. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from schemas import Outcome
from services.demo.tally import Tally
from services.fusion.deliver.accounts import Accounts

RECORD_ENDS: Final = ("folded", "duplicate", "filtered", "dead_lettered")


@dataclass(frozen=True, slots=True)
class Sum:
    """One sum: `ok` when it comes out, with the numbers in `said` either way."""

    what: str
    said: str
    ok: bool


def closing_sums(accounts: Accounts, tally: Tally, inputs: int) -> list[Sum]:
    """Return the sums; `inputs` is how many records the input topics gained while the worker ran."""
    return [_records(accounts, inputs), *_triggers(accounts, tally), _signals(tally), _failures(tally), _in_time(tally), _in_order(tally)]


def _records(accounts: Accounts, inputs: int) -> Sum:
    parts = [accounts.records[end] for end in RECORD_ENDS]
    said = f"{inputs} = " + " + ".join(f"{count} {end}" for count, end in zip(parts, RECORD_ENDS, strict=True))
    return Sum("every record was folded, ignored or put aside", said, sum(accounts.records.values()) == sum(parts) == inputs)


def _triggers(accounts: Accounts, tally: Tally) -> list[Sum]:
    told = {outcome.value: tally.outcomes[outcome] for outcome in Outcome}
    said = f"{accounts.triggers} = " + " + ".join(f"{count} {outcome}" for outcome, count in told.items())
    same = all(accounts.outcomes[outcome] == count for outcome, count in told.items())
    return [
        Sum(
            "every trigger has one outcome in the audit",
            said,
            accounts.triggers == len(tally.audits) == sum(told.values()) and tally.contradictions == 0,
        ),
        Sum("audit and worker count the same", f"{len(tally.audits)} in the audit, {sum(accounts.outcomes.values())} counted", same),
    ]


def _signals(tally: Tally) -> Sum:
    published = [audit.signal_id for audit in tally.audits.values() if audit.outcome is Outcome.PUBLISHED]
    there = sum(signal_id in tally.signals for signal_id in published)
    return Sum(
        "every published outcome has its signal",
        f"{len(published)} published, {there} of them on the topic",
        there == len(published) == len(set(published)),
    )


def _failures(tally: Tally) -> Sum:
    failed = [audit for audit in tally.audits.values() if audit.outcome is Outcome.FAILED]
    views = sum(audit.signal_id is not None for audit in failed)
    return Sum("no failure became a view", f"{len(failed)} failed, {views} of them with a signal", views == 0)


def _in_time(tally: Tally) -> Sum:
    late = sum(signal.ts_decided_ms > signal.valid_until_ms for signal in tally.signals.values())
    return Sum("nothing stale left", f"{len(tally.signals)} signals, {late} of them past their validity", late == 0)


def _in_order(tally: Tally) -> Sum:
    """Signals are kept in the order of their topic, which is the order of each lane."""
    newest: dict[tuple[str, str, str], int] = {}
    back: Counter[str] = Counter()
    for signal in tally.signals.values():
        lane = (signal.symbol, signal.interval, signal.mode)
        offset = signal.as_of.market.offset
        back[signal.symbol] += offset < newest.get(lane, -1)
        newest[lane] = max(offset, newest.get(lane, -1))
    return Sum("no lane went back in time", f"{len(newest)} lanes, {back.total()} steps back", back.total() == 0)
