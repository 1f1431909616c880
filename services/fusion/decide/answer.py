"""The model's answer: its grammar, its strict parse, which yields the decision before the rationale has come, and prices on the tick.

What is acted on comes first in the answer and the rationale last, so that a signal is published while the rationale streams in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schemas import Action, Instrument, Mode
from services.core.settings import FusionSettings
from services.inference.engine import THOUGHT_END, Sampling

_Rationale = Annotated[str, Field(max_length=400)]
_Offset = Annotated[int, Field(ge=-99, le=99)]


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Entry(_Answer):
    """`buy` or `sell`, with prices in tenths of ATR from the last close."""

    action: Literal["buy", "sell"]
    conviction: Annotated[int, Field(ge=0, le=100)]
    horizon: Annotated[int, Field(ge=1, le=99)]
    entry: _Offset
    stop: _Offset
    target: _Offset
    rationale: _Rationale = ""


class Stand(_Answer):
    """`exit` or `hold`."""

    action: Literal["exit", "hold"]
    conviction: Annotated[int, Field(ge=0, le=100)]
    horizon: Annotated[int, Field(ge=1, le=99)]
    rationale: _Rationale = ""


class Abstain(_Answer):
    """No view."""

    action: Literal["abstain"]
    reason: Annotated[str, Field(min_length=1, max_length=200)]
    rationale: _Rationale = ""


Answer = Entry | Stand | Abstain
_answers: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="action")])


def _schema() -> str:
    def integer(low: int, high: int) -> dict[str, Any]:
        return {"type": "integer", "minimum": low, "maximum": high}

    def shape(**properties: dict[str, Any]) -> dict[str, Any]:
        return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}

    # A grammar's plain string lets raw control characters through, which no JSON parser takes: printable ASCII without quote and
    # backslash it is.
    def text(low: int, high: int) -> dict[str, Any]:
        return {"type": "string", "pattern": rf"^[ !#-\[\]-~]{{{low},{high}}}$"}

    rationale = text(0, 160)
    shared = {"conviction": integer(0, 100), "horizon": integer(1, 99)}
    offsets = {name: integer(-99, 99) for name in ("entry", "stop", "target")}
    return orjson.dumps(
        {
            "anyOf": [
                shape(action={"type": "string", "enum": ["buy", "sell"]}, **shared, **offsets, rationale=rationale),
                shape(action={"type": "string", "enum": ["exit", "hold"]}, **shared, rationale=rationale),
                shape(
                    action={"type": "string", "const": "abstain"},
                    reason=text(1, 80),
                    rationale=rationale,
                ),
            ]
        }
    ).decode()


ANSWER_SCHEMA: Final = _schema()
"""The grammar for engines that constrain their output, as JSON text."""


def sampling(settings: FusionSettings, mode: Mode, seed_of: UUID) -> Sampling:
    """Return how an answer in `mode` is sampled, with a seed made of the trigger's id: a replay asks with the same one.

    In mode `deep` it is thought and answer in one: a grammar would forbid the thought.
    """
    deep = mode == "deep"
    return Sampling(
        settings.max_new_tokens + (settings.deep_thought_tokens if deep else 0),
        settings.deep_temperature if deep else settings.temperature,
        ANSWER_SCHEMA if settings.grammar and not deep else None,
        top_p=settings.deep_top_p if deep else settings.top_p,
        seed=seed_of.int & _SEED_BITS,
    )


_SEED_BITS: Final = 2**31 - 1
_MAX_PRICE: Final = Decimal(10) ** 12
"""As in the contracts."""

_DECISION_END: Final = re.compile(r',\s*"rationale"\s*:')


class AnswerError(Exception):
    """The answer cannot be used. `reason` is `answer_malformed`, `answer_invalid` or `answer_cut_off`."""

    def __init__(self, reason: str, detail: str) -> None:
        """`detail` says what was wrong, for people."""
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class AnswerReader:
    """Reads an answer as it streams in."""

    def __init__(self, *, thinking: bool) -> None:
        """`thinking` answers carry a thought, which ends before the object begins."""
        self._thinking = thinking
        self._scanned = 0
        self.text = ""
        self.decision: Answer | None = None
        """What is acted on, as soon as it is there; its rationale is empty until `finish`."""

    def feed(self, piece: str) -> bool:
        """Take in the next piece; return True when it completed the decision part. Raises AnswerError when that is invalid."""
        # An engine's JSON may hold half a surrogate pair, which has no UTF-8: no tokenizer and no message takes it.
        self.text += piece.encode(errors="replace").decode()
        if self.decision is not None:
            return False
        body_at = self._body_at()
        if body_at is None:
            return False
        match = _DECISION_END.search(self.text, max(body_at, self._scanned))
        if match is None:
            # Whatever is completed later starts at the last comma so far, however much white space follows it.
            self._scanned = max(self._scanned, self.text.rfind(","))
            return False
        self.decision = _parse(self.text[body_at : match.start()] + "}")
        return True

    def finish(self, finish_reason: str | None) -> Answer:
        """Return the whole answer once the stream has ended; raise AnswerError."""
        body_at = self._body_at()
        body = "" if body_at is None else self.text[body_at:]
        try:
            return _parse(body)
        except AnswerError as error:
            if finish_reason == "length":
                raise AnswerError("answer_cut_off", f"the answer was cut off after {len(self.text)} characters") from error
            raise

    def _body_at(self) -> int | None:
        if not self._thinking:
            return 0
        end = self.text.find(THOUGHT_END)
        return None if end < 0 else end + len(THOUGHT_END)


def _parse(text: str) -> Answer:
    try:
        values = orjson.loads(text.strip())
    except orjson.JSONDecodeError as error:
        raise AnswerError("answer_malformed", f"the answer is not JSON ({error}): {text[:200]!r}") from error
    try:
        answer = _answers.validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=True)[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "answer"
        raise AnswerError("answer_invalid", f"{where}: {first['msg']}, not {str(first['input'])[:100]!r}") from error
    if isinstance(answer, Entry):
        side = 1 if answer.action == "buy" else -1
        if not side * answer.stop < side * answer.entry < side * answer.target:
            raise AnswerError(
                "answer_invalid",
                f"{answer.action} with entry {answer.entry}, stop {answer.stop} and target {answer.target} is on the wrong side",
            )
    return answer


@dataclass(frozen=True, slots=True)
class Prices:
    """An answer's prices on the tick, as decimal strings."""

    entry_type: Literal["market", "limit"]
    entry: str
    stop: str
    target: str


def prices(answer: Entry, close: float, atr: float, instrument: Instrument) -> Prices:
    """Return the prices that `answer` means.

    They are rounded so that none becomes more generous: entry towards the last close's worse side never passes what was said, the
    stop is rounded away from the entry and the target towards it. Raises AnswerError when they collapse, fall to zero or leave the
    range of prices.
    """
    last, unit = Decimal(repr(close)), Decimal(repr(atr)) / 10
    up, down = ROUND_CEILING, ROUND_FLOOR
    buy = answer.action == "buy"
    said = [last + offset * unit for offset in (answer.entry, answer.stop, answer.target)]
    if max(map(abs, said)) >= _MAX_PRICE:
        raise AnswerError("answer_invalid", f"prices leave the range below {_MAX_PRICE} (close {close}, atr {atr})")
    entry, stop, target = (_on_tick(price, instrument, down if buy else up) for price in said)
    side = 1 if buy else -1
    if min(entry, stop, target) <= 0 or not side * stop < side * entry < side * target:
        raise AnswerError(
            "answer_invalid",
            f"prices collapse on the tick {instrument.increment_at(last)}: entry {entry}, stop {stop}, target {target} "
            f"(close {close}, atr {atr})",
        )
    return Prices("market" if side * answer.entry >= 0 else "limit", f"{entry:f}", f"{stop:f}", f"{target:f}")


def on_tick(price: float, instrument: Instrument) -> str:
    """Return `price` on the instrument's nearest tick, as a decimal string."""
    return f"{_on_tick(Decimal(repr(price)), instrument, ROUND_HALF_EVEN):f}"


def _on_tick(price: Decimal, instrument: Instrument, rounding: str) -> Decimal:
    tick = instrument.increment_at(price)
    return ((price / tick).to_integral_value(rounding) * tick).quantize(tick)


def action_of(answer: Answer) -> Action:
    """Return the answer's action."""
    return Action(answer.action)
