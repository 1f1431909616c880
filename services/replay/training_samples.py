"""Training data from past decisions: each answer with what the market made of it, split by time, and pairs of a better and a worse answer.

Pure. An answer is known to be good or bad only when its position has ended: training samples end, by a margin, before testing begins.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import orjson

from schemas import Action, AuditRecord, Outcome, SignalOutcome
from services.fusion.decide.answer import AnswerError, AnswerReader, Entry, Stand, line_of

Kind = Literal["answers", "hold"]

_OPENS: Final = frozenset({Action.BUY, Action.SELL})
_HOLD_CONVICTION: Final = 50


@dataclass(frozen=True, slots=True)
class Sample:
    """One published answer. `outcome` is None where it opened no position, or none that has been scored."""

    record: AuditRecord
    answer: str
    prompt_hash: str
    at_ms: int
    """Event time of the last market record in the prompt."""
    outcome: SignalOutcome | None

    @property
    def known_ms(self) -> int:
        """Return the event time from which the outcome was known."""
        return self.at_ms if self.outcome is None else self.outcome.ts_exit_ms

    @property
    def return_net(self) -> float | None:
        """Return what the answer made: 0 where it opened no position or was not filled; None where it is not scored."""
        if self.record.action not in _OPENS:
            return 0.0
        if self.outcome is None or self.outcome.unscored_reason is not None:
            return None
        return self.outcome.return_net or 0.0


class Split(NamedTuple):
    """Samples to train on and to test on, each in order of time; `purged` is the count of those between."""

    train: list[Sample]
    test: list[Sample]
    purged: int


class Pair(NamedTuple):
    """Two answers to one prompt, the better one first. `kind` says whether a model gave the other one, or it is the choice to hold."""

    sample: Sample
    chosen: str
    rejected: str
    kind: Kind
    difference: float
    """Of their net returns."""


def samples_of(records: Iterable[AuditRecord], outcomes: Iterable[SignalOutcome]) -> list[Sample]:
    """Return one sample for each trigger that was answered and published, in order of time."""
    by_signal: dict[UUID, SignalOutcome] = {}
    for outcome in outcomes:
        by_signal.setdefault(outcome.signal_id, outcome)
    found: dict[UUID, Sample] = {}
    for record in records:
        if record.outcome is Outcome.PUBLISHED and record.answer and record.prompt_hash is not None and record.as_of is not None:
            outcome_of = None if record.signal_id is None else by_signal.get(record.signal_id)
            sample = Sample(record, record.answer, record.prompt_hash, record.as_of.market.ts_event_ms, outcome_of)
            found.setdefault(record.trigger_id, sample)
    return sorted(found.values(), key=lambda sample: (sample.at_ms, sample.record.symbol, sample.record.mode))


def split_at(samples: Sequence[Sample], share: float) -> int:
    """Return the event time at which the last `share` of the samples begins; ValueError when there are none."""
    if not samples:
        raise ValueError("there are no samples to split")
    return samples[min(len(samples) - 1, round(len(samples) * (1 - share)))].at_ms


def split_by_time(samples: Iterable[Sample], test_from_ms: int, embargo_ms: int) -> Split:
    """Return those whose outcome was known `embargo_ms` before `test_from_ms`, and those decided from then on.

    What lies between is left out: its outcome was decided by bars that tests are about. Source: purging and embargo, Lopez de
    Prado, Advances in Financial Machine Learning (2018), chapter 7.
    """
    train: list[Sample] = []
    test: list[Sample] = []
    purged = 0
    for sample in samples:
        if sample.at_ms >= test_from_ms:
            test.append(sample)
        elif sample.known_ms < test_from_ms - embargo_ms:
            train.append(sample)
        else:
            purged += 1
    return Split(train, test, purged)


def pairs_of(samples: Iterable[Sample], others: Mapping[str, Sequence[Sample]], min_difference: float) -> Iterator[Pair]:
    """Yield the pairs of each scored sample: with other answers to its prompt where there are any, else with holding.

    `others` maps a prompt's hash to answers of other trails. Pairs whose net returns differ by less than `min_difference` are left out.
    """
    for sample in samples:
        made = sample.return_net
        if made is None:
            continue
        rivals: list[tuple[str, float, Kind]] = [
            (other.answer, other.return_net, "answers")
            for other in others.get(sample.prompt_hash, ())
            if other.return_net is not None and other.answer != sample.answer
        ]
        if not rivals and (held := _holding(sample)) is not None:
            rivals.append((held, 0.0, "hold"))
        for answer, other_made, kind in rivals:
            difference = made - other_made
            if abs(difference) >= min_difference and difference:
                better, worse = (sample.answer, answer) if difference > 0 else (answer, sample.answer)
                yield Pair(sample, better, worse, kind, abs(difference))


def by_prompt(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Return the samples by the hash of their prompt."""
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.prompt_hash].append(sample)
    return found


def plain_row(sample: Sample, system: str, user: str) -> dict[str, Any]:
    """Return a line of the plain JSONL: prompt, answer and outcome, and where they come from."""
    record = sample.record
    return {
        "id": str(record.trigger_id),
        "time": dt.datetime.fromtimestamp(sample.at_ms / 1000, dt.UTC).isoformat(timespec="milliseconds"),
        "symbol": record.symbol,
        "interval": record.interval,
        "mode": record.mode,
        "system": system,
        "prompt": user,
        "answer": sample.answer,
        "action": None if record.action is None else record.action.value,
        "outcome": _outcome(sample.outcome),
        "source": record.source,
        "model": record.model,
        "config_version": record.config_version,
        "prompt_hash": sample.prompt_hash,
    }


def sharegpt_row(sample: Sample, system: str, user: str) -> dict[str, Any]:
    """Return a line of LLaMA-Factory's ShareGPT format for supervised fine-tuning; `outcome` is a column that it ignores."""
    return {
        "conversations": [{"from": "human", "value": user}, {"from": "gpt", "value": sample.answer}],
        "system": system,
        "outcome": _outcome(sample.outcome),
    }


def preference_row(pair: Pair, system: str, user: str) -> dict[str, Any]:
    """Return a line of LLaMA-Factory's ShareGPT preference format (DPO); the last two are columns that it ignores."""
    return {
        "conversations": [{"from": "human", "value": user}],
        "chosen": {"from": "gpt", "value": pair.chosen},
        "rejected": {"from": "gpt", "value": pair.rejected},
        "system": system,
        "pair": pair.kind,
        "return_difference": pair.difference,
    }


def dataset_info(files: Mapping[str, tuple[str, bool]]) -> dict[str, Any]:
    """Return LLaMA-Factory's `dataset_info.json` for data sets by name; a value is the file's name, and whether it holds pairs."""
    plain = {"messages": "conversations", "system": "system"}
    return {
        name: {"file_name": file, "formatting": "sharegpt"}
        | ({"ranking": True, "columns": {**plain, "chosen": "chosen", "rejected": "rejected"}} if ranking else {"columns": plain})
        for name, (file, ranking) in files.items()
    }


def _holding(sample: Sample) -> str | None:
    """Return the answer that would have held instead of opening a position, in the form of the one that did; None for other modes."""
    if sample.record.mode != "fast" or sample.record.action not in _OPENS:
        return None
    reader = AnswerReader(thinking=False)
    try:
        reader.feed(sample.answer)
        answer = reader.finish("stop")
    except AnswerError:
        return None
    if not isinstance(answer, Entry):
        return None
    held = Stand(action="hold", conviction=_HOLD_CONVICTION, horizon=answer.horizon)
    if not sample.answer.lstrip().startswith("{"):
        return line_of(held)
    return orjson.dumps(held.model_dump(exclude=None if '"rationale"' in sample.answer else {"rationale"})).decode()


def _outcome(outcome: SignalOutcome | None) -> dict[str, Any]:
    fields = ("exit_reason", "return_net", "max_favourable", "max_adverse", "bars_held", "ts_entry_ms", "ts_exit_ms")
    if outcome is None:
        return dict.fromkeys(fields)
    values = {name: getattr(outcome, name) for name in fields}
    return values | {"exit_reason": outcome.exit_reason.value}
