"""The teacher: what should have been answered to a prompt, by hindsight with costs, or an abstention where no answer paid. Pure.

It keeps an answer that made money net of costs and has a fact of the prompt on its side, and gives the reason with the prompt's own
numbers. What it cannot judge it leaves out. A conviction is how often such answers paid among those that it was shown.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

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
        """Return a line of `plain-*.jsonl`; raise KeyError where a field is missing."""
        outcome = values["outcome"] or {}
        names = ("id", "time", "symbol", "mode", "system", "prompt", "answer", "source", "prompt_hash")
        return cls(**{name: values[name] or "" for name in names}, return_net=outcome.get("return_net"))


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


Kind = tuple[str, ...]


class Convictions:
    """How often answers of a kind paid, in whole percent."""

    def __init__(self, judged: Iterable[tuple[Kind, bool]]) -> None:
        """Count answers by kind: side, setup, strength; a shorter kind stands for all that begin with it."""
        self._counts: dict[Kind, list[int]] = defaultdict(lambda: [0, 0])
        for kind, paid in judged:
            for length in range(len(kind) + 1):
                count = self._counts[kind[:length]]
                count[0] += 1
                count[1] += paid

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Convictions:
        """Count the judged answers of `rows`."""
        judged = ((row, decision) for row in rows if (decision := _decision(row.answer)) is not None and row.return_net is not None)
        return cls((_kind(decision, setup_of(Facts.of(row.prompt).values)), (row.return_net or 0) > 0) for row, decision in judged)

    def percent(self, kind: Kind) -> int:
        """Return the share that paid of the longest kind with enough answers; 50 where nothing was counted."""
        for length in range(len(kind), -1, -1):
            total, paid = self._counts.get(kind[:length], (0, 0))
            if total >= _LEAST_COUNTED or (length == 0 and total):
                return round(100 * paid / total)
        return 50


def teach(rows: Sequence[Row], convictions: Convictions) -> Taught | None:
    """Return what should have been answered to the one prompt of `rows`; None where no answer can be judged.

    Of several answers the one that made most is kept, if it made anything and a fact supports it. Answers that open no position
    are kept where no other was judged.
    """
    facts = Facts.of(rows[0].prompt)
    setup = setup_of(facts.values)
    rule = _rule(setup)
    judged = [(row, decision) for row in rows if row.return_net is not None and (decision := _decision(row.answer)) is not None]
    if judged:
        row, decision = max(judged, key=lambda one: one[0].return_net or 0.0)
        made = row.return_net or 0.0
        why = _why(row, decision, facts, setup)
        if made > 0 and why is not None:
            line = line_of(decision.model_copy(update={"conviction": convictions.percent(_kind(decision, setup))}))
            return Taught(line, why, decision.action, rule, made > 0, made)
        return _abstention(facts, setup, made)
    standing = [(row, stand) for row in rows if (stand := _stand(row.answer)) is not None]
    if standing:
        row, stand = standing[0]
        why = _own_rationale(row) or sentence(None, facts.values, facts.texts)
        return Taught(line_of(stand), why, stand.action, rule, None, None)
    if all(row.answer.startswith(("abstain", '{"action":"abstain"')) for row in rows):
        return _abstention(facts, setup, None)
    return None


def _abstention(facts: Facts, setup: Setup | None, made: float | None) -> Taught:
    why, paid = reason(setup, facts.values), None if made is None else made > 0
    return Taught(f"abstain {why[:_MAX_REASON]}", sentence(setup, facts.values, facts.texts), "abstain", _rule(setup), paid, made)


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
