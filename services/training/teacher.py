"""The teacher: what should have been answered to a prompt, by hindsight with costs, or an abstention where no answer paid. Pure.

Teacher `outcome` keeps a position that made money net of costs; `kind` keeps a position whose kind made money on average in the training
part, whatever it made itself. Either way a fact of the prompt has to support it, and the reason quotes the prompt's own numbers. A
conviction is the share of such positions that paid.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from services.fusion.decide.answer import AnswerError, AnswerReader, Entry, Stand, line_of
from services.training.setups import Setup, reason, sentence, setup_of

_FACTS: Final = re.compile(r"^Facts: (.+)$", re.MULTILINE)
_LEAST_COUNTED: Final = 30
"""Fewer judged answers of one kind say nothing about how often it pays; all of its side are counted then."""
_MAX_REASON: Final = 80
_LOW_RSI: Final = 40.0
_HIGH_RSI: Final = 60.0


@dataclass(frozen=True, slots=True)
class Row:
    """A decision as `aquiline export training` writes it."""

    id: str
    time: str
    symbol: str
    mode: str
    system: str
    prompt: str
    answer: str
    source: str
    prompt_hash: str
    return_net: float | None
    """None where the answer opened no position, or none that was filled and scored."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Row:
        """Return a line of `plain-*.jsonl`; raise KeyError where a field is missing, TypeError where one is of another type."""
        outcome = values["outcome"] or {}
        names = ("id", "time", "symbol", "mode", "system", "prompt", "answer", "source", "prompt_hash")
        texts = {name: values[name] or "" for name in names}
        if wrong := [name for name, value in texts.items() if not isinstance(value, str)]:
            raise TypeError(f"{wrong[0]} is no text")
        made = outcome.get("return_net") if isinstance(outcome, dict) else outcome
        if not isinstance(made, int | float | None):
            raise TypeError("outcome is none")
        return cls(**texts, return_net=made)


class Facts(NamedTuple):
    """The facts of a prompt as numbers, and as it writes them."""

    values: dict[str, float]
    texts: dict[str, str]

    @classmethod
    def of(cls, prompt: str) -> Facts:
        """Return the facts of a prompt's text; empty where it shows none."""
        row = _FACTS.search(prompt)
        texts = {} if row is None else dict(part.split("=", 1) for part in row[1].split() if "=" in part)
        values = {}
        for name, text in texts.items():
            try:
                values[name] = float(text)
            except ValueError:
                continue
        return cls(values, {name: texts[name] for name in values})


class Taught(NamedTuple):
    """What should have been answered: `line` is the decision, and `rationale` its reason. `rule` is what the setups alone would do."""

    line: str
    rationale: str
    action: str
    rule: str
    paid: bool | None
    """Whether the position of the answer that was judged made money net of costs; None where none was judged."""
    return_net: float | None


Teacher = Literal["outcome", "kind"]
Kind = tuple[str, ...]


class TrackRecord:
    """What positions of each kind made in the training part: how often they paid, and their mean return net of costs."""

    def __init__(self, returns: Iterable[tuple[Kind, float]]) -> None:
        """Sort returns by kind: side, setup, strength; a shorter kind stands for all that begin with it."""
        self._returns: dict[Kind, list[float]] = defaultdict(list)
        for kind, made in returns:
            for length in range(len(kind) + 1):
                self._returns[kind[:length]].append(made)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> TrackRecord:
        """Count the judged positions of `rows`; one that several prompts of the same bar led to counts once."""
        judged: dict[tuple[str, str, Entry], tuple[Kind, float]] = {}
        for row in rows:
            if row.return_net is not None and (decision := _decision(row.answer)) is not None:
                kind = _kind(decision, setup_of(Facts.of(row.prompt).values))
                judged.setdefault((row.symbol, row.time, decision.model_copy(update={"rationale": ""})), (kind, row.return_net))
        return cls(judged.values())

    @property
    def judged(self) -> int:
        """Return how many positions have an outcome."""
        return len(self._returns[()])

    def percent(self, kind: Kind) -> int:
        """Return the share that paid, in whole percent; 50 where nothing was counted."""
        returns = self._of(kind)
        return round(100 * sum(made > 0 for made in returns) / len(returns)) if returns else 50

    def mean_return(self, kind: Kind) -> float:
        """Return the mean return net of costs; 0 where nothing was counted."""
        returns = self._of(kind)
        return sum(returns) / len(returns) if returns else 0.0

    def _of(self, kind: Kind) -> Sequence[float]:
        """Return the returns of the longest kind with enough of them."""
        lengths = range(len(kind), 0, -1)
        return next((one for length in lengths if len(one := self._returns.get(kind[:length], [])) >= _LEAST_COUNTED), self._returns[()])


def teach(rows: Sequence[Row], record: TrackRecord, teacher: Teacher = "outcome") -> Taught | None:
    """Return what should have been answered to the one prompt of `rows`; None where no answer can be judged.

    Of several positions the one that made most, itself or by its kind, is kept, if that is more than nothing and a fact supports it.
    Answers that open no position are kept where no other was judged.
    """
    facts = Facts.of(rows[0].prompt)
    setup = setup_of(facts.values)
    rule = _rule(setup)
    positions = [(row, decision) for row in rows if (decision := _decision(row.answer)) is not None]
    if teacher == "kind":
        judged = [(record.mean_return(_kind(decision, setup)), row, decision) for row, decision in positions]
    else:
        judged = [(row.return_net, row, decision) for row, decision in positions if row.return_net is not None]
    if judged:
        worth, row, decision = max(judged, key=lambda one: one[0])
        why = _why(row, decision, facts, setup)
        if worth > 0 and why is not None:
            line = line_of(decision.model_copy(update={"conviction": record.percent(_kind(decision, setup))}))
            return Taught(line, why, decision.action, rule, _paid(row), row.return_net)
        return _abstention(facts, setup, row)
    standing = [(row, stand) for row in rows if (stand := _stand(row.answer)) is not None]
    if standing:
        row, stand = standing[0]
        why = _own_rationale(row) or sentence(None, facts.values, facts.texts)
        return Taught(line_of(stand), why, stand.action, rule, None, None)
    if all(row.answer.startswith(("abstain", '{"action":"abstain"')) for row in rows):
        return _abstention(facts, setup, rows[0])
    return None


def opens_position(row: Row) -> bool:
    """Return whether the answer opens a position."""
    return _decision(row.answer) is not None


def _abstention(facts: Facts, setup: Setup | None, row: Row) -> Taught:
    line, why = f"abstain {reason(setup, facts.values)[:_MAX_REASON]}", sentence(setup, facts.values, facts.texts)
    return Taught(line, why, "abstain", _rule(setup), _paid(row), row.return_net)


def _paid(row: Row) -> bool | None:
    return None if row.return_net is None else row.return_net > 0


def _rule(setup: Setup | None) -> str:
    """Return what the setups alone would do."""
    return "abstain" if setup is None else setup.side


def _why(row: Row, decision: Entry, facts: Facts, setup: Setup | None) -> str | None:
    """Return the reason for a position; None where no fact of the prompt supports it."""
    if (own := _own_rationale(row)) is not None:
        return own
    if setup is not None and setup.side == decision.action:
        return sentence(setup, facts.values, facts.texts)
    return _support(decision.action, facts)


def _support(side: str, facts: Facts) -> str | None:
    """Return the facts that speak for a side, which no setup does; None where none does."""
    values, texts, buys = facts.values, facts.texts, side == "buy"
    said = [f"{name} is {texts[name]}" for name in ("macd_hist", "ret_5") if values.get(name) and (values[name] > 0) == buys]
    if "rsi" in values and (values["rsi"] < _LOW_RSI if buys else values["rsi"] > _HIGH_RSI):
        said.append(f"rsi is {texts['rsi']}")
    return f"{'Rise' if buys else 'Fall'}: {' and '.join(said[:2])}." if said else None


def _own_rationale(row: Row) -> str | None:
    """Return the reason that a language model gave itself; None where rules or a simulator answered, or it gave none."""
    if row.source != "llm":
        return None
    reader = AnswerReader(thinking=False)
    try:
        reader.feed(row.answer)
        return reader.finish("stop").rationale or None
    except AnswerError:
        return None


def _parsed(answer: str) -> object:
    reader = AnswerReader(thinking=False)
    try:
        reader.feed(answer)
        return reader.finish("stop")
    except AnswerError:
        return None


def _decision(answer: str) -> Entry | None:
    parsed = _parsed(answer)
    return parsed if isinstance(parsed, Entry) else None


def _stand(answer: str) -> Stand | None:
    parsed = _parsed(answer)
    return parsed if isinstance(parsed, Stand) else None


def _kind(decision: Entry, setup: Setup | None) -> Kind:
    if setup is None or setup.side != decision.action:
        return (decision.action,)
    return (decision.action, setup.kind, str(setup.strength))
