"""The model's answer: a line or a JSON object, its grammars, and its strict parse, which yields the decision before the rationale has come.

What is acted on comes first in the answer and the rationale last, so that a signal is published while the rationale streams in.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schemas import Action, Mode
from services.core.fusion_settings import FusionSettings
from services.inference.engine import THOUGHT_END, Sampling

_SEED_BITS: Final = 2**31 - 1

RATIONALE_TOKENS: Final = 48
"""The most tokens that a rationale adds to an answer: a sentence of 160 characters has some 40."""

_MAX_RATIONALE: Final = 400
_Rationale = Annotated[str, Field(max_length=_MAX_RATIONALE)]
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

# --- Grammars ----------------------------------------------------------------------------------------------------------------

# A grammar's plain string lets raw control characters through, which no JSON parser takes: printable ASCII without quote and backslash.
_PRINTABLE: Final = r"[ !#-\[\]-~]"
_WORD_START: Final = r"[!#-\[\]-~]"


@cache
def answer_schema(*, rationale: bool) -> str:
    """Return the grammar of an answer in JSON, as a JSON schema's text."""

    def integer(low: int, high: int) -> dict[str, Any]:
        return {"type": "integer", "minimum": low, "maximum": high}

    def text(low: int, high: int) -> dict[str, Any]:
        return {"type": "string", "pattern": rf"^{_PRINTABLE}{{{low},{high}}}$"}

    last = {"rationale": text(0, 160)} if rationale else {}

    def shape(**properties: dict[str, Any]) -> dict[str, Any]:
        every = properties | last
        return {"type": "object", "properties": every, "required": list(every), "additionalProperties": False}

    shared = {"conviction": integer(0, 100), "horizon": integer(1, 99)}
    offsets = {name: integer(-99, 99) for name in ("entry", "stop", "target")}
    return orjson.dumps(
        {
            "anyOf": [
                shape(action={"type": "string", "enum": ["buy", "sell"]}, **shared, **offsets),
                shape(action={"type": "string", "enum": ["exit", "hold"]}, **shared),
                shape(action={"type": "string", "const": "abstain"}, reason=text(1, 80)),
            ]
        }
    ).decode()


ANSWER_SCHEMA: Final = answer_schema(rationale=True)
"""The grammar of an answer in JSON that ends with its rationale."""


@cache
def answer_regex(*, rationale: bool) -> str:
    r"""Return the grammar of an answer on one line, and of a rationale on the next one where `rationale` wants it.

    `buy 62 5 2 -12 25` is action, conviction, horizon, entry, stop and target. Every line that matches is a valid decision: an entry is
    less than one ATR from the last close, and stop and target are further away than that unless it is at the last close.
    """
    view = "(100|[1-9]?[0-9]) [1-9][0-9]?"
    buy = "(0 -[1-9][0-9]? [1-9][0-9]?|-?[1-9] -[1-9][0-9] [1-9][0-9])"
    sell = "(0 [1-9][0-9]? -[1-9][0-9]?|-?[1-9] [1-9][0-9] -[1-9][0-9])"
    line = f"(buy {view} {buy}|sell {view} {sell}|(exit|hold) {view}|abstain {_WORD_START}{_PRINTABLE}{{0,79}})"
    return f"{line}(\n{_PRINTABLE}{{0,160}})?" if rationale else line


def sampling(settings: FusionSettings, mode: Mode, seed_of: UUID) -> Sampling:
    """Return how an answer in `mode` is sampled, with a seed made of the trigger's id: a replay asks with the same one.

    In mode `deep` it is thought and answer in one: a grammar would forbid the thought.
    """
    if mode == "deep":
        return Sampling(
            settings.max_new_tokens + settings.deep_thought_tokens,
            settings.deep_temperature,
            top_p=settings.deep_top_p,
            seed=seed_of.int & _SEED_BITS,
        )
    return _constrained(settings, seed_of, rationale=settings.rationale == "short")


def after_thought(settings: FusionSettings, seed_of: UUID) -> Sampling:
    """Return how an answer that follows a thought is sampled: the thought has said why."""
    return _constrained(settings, seed_of, rationale=False)


def _constrained(settings: FusionSettings, seed_of: UUID, *, rationale: bool) -> Sampling:
    line = settings.answer_form == "line"
    return Sampling(
        settings.max_new_tokens + (RATIONALE_TOKENS if rationale else 0),
        settings.temperature,
        answer_schema(rationale=rationale) if settings.grammar and not line else None,
        regex=answer_regex(rationale=rationale) if settings.grammar and line else None,
        top_p=settings.top_p,
        seed=seed_of.int & _SEED_BITS,
    )


# --- Parse -------------------------------------------------------------------------------------------------------------------

_DECISION_END: Final = re.compile(r',\s*"rationale"\s*:')
_NUMBER: Final = re.compile(r"-?[0-9]{1,6}")
_FIELDS: Final = {
    "buy": ("conviction", "horizon", "entry", "stop", "target"),
    "sell": ("conviction", "horizon", "entry", "stop", "target"),
    "exit": ("conviction", "horizon"),
    "hold": ("conviction", "horizon"),
}


class AnswerError(Exception):
    """The answer cannot be used. `reason` is `answer_malformed`, `answer_invalid` or `answer_cut_off`."""

    def __init__(self, reason: str, detail: str) -> None:
        """`detail` says what was wrong, for people."""
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class AnswerReader:
    """Reads an answer as it streams in: a JSON object when it begins with a brace, else a line with the rationale on those after it."""

    def __init__(self, *, thinking: bool) -> None:
        """`thinking` answers carry a thought, which ends before the answer begins."""
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
        if self.text.startswith("{", body_at):
            end = self._object_end(body_at)
            said = None if end is None else self.text[body_at:end] + "}"
        else:
            end = self.text.find("\n", body_at)
            said = None if end < 0 else self.text[body_at:end]
        if said is None:
            return False
        self.decision = _parse(said)
        return True

    def finish(self, finish_reason: str | None) -> Answer:
        """Return the whole answer once the stream has ended; raise AnswerError.

        A line has no end of its own: one without a line break counts only when the engine says that the answer ended (`stop`), since
        the first digit of a number that was cut off is a number too.
        """
        body_at = self._body_at()
        body = "" if body_at is None else self.text[body_at:]
        cut_off = AnswerError(
            "answer_cut_off", f"the answer was cut off after {len(self.text)} characters ({finish_reason or 'no reason given'})"
        )
        try:
            answer = _parse(body)
        except AnswerError as error:
            if finish_reason == "length" and self.decision is None:
                raise cut_off from error
            raise
        if finish_reason != "stop" and not body.startswith("{") and "\n" not in body:
            raise cut_off
        return answer

    def _body_at(self) -> int | None:
        """Return where the answer's first character is, None before it has come."""
        start = 0
        if self._thinking:
            end = self.text.find(THOUGHT_END)
            if end < 0:
                return None
            start = end + len(THOUGHT_END)
        while start < len(self.text) and self.text[start].isspace():
            start += 1
        return start if start < len(self.text) else None

    def _object_end(self, body_at: int) -> int | None:
        """Return where the decision part of a JSON object ends, None while it goes on."""
        match = _DECISION_END.search(self.text, max(body_at, self._scanned))
        if match is None:
            # Whatever is completed later starts at the last comma so far, however much white space follows it.
            self._scanned = max(self._scanned, self.text.rfind(","))
            return None
        return match.start()


def line_of(answer: Answer) -> str:
    """Return the decision as a line, without its rationale."""
    values = answer.model_dump(exclude={"rationale"})
    return " ".join(str(value) for value in values.values())


def _parse(text: str) -> Answer:
    values = _object(text) if text.startswith("{") else _line(text)
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


def _object(text: str) -> Any:
    try:
        return orjson.loads(text.strip())
    except orjson.JSONDecodeError as error:
        raise AnswerError("answer_malformed", f"the answer is not JSON ({error}): {text[:200]!r}") from error


def _line(text: str) -> dict[str, Any]:
    line, _, rest = text.strip().partition("\n")
    action, _, said = line.rstrip().partition(" ")
    if action == "abstain":
        return {"action": action, "reason": said, "rationale": rest.strip()[:_MAX_RATIONALE]}
    names, numbers = _FIELDS.get(action), said.split(" ")
    if names is None or not all(map(_NUMBER.fullmatch, numbers)):
        raise AnswerError("answer_malformed", f"the answer is no line such as 'buy 62 5 2 -12 25' and no JSON object: {text[:200]!r}")
    if len(numbers) != len(names):
        raise AnswerError("answer_invalid", f"{action} takes {len(names)} numbers ({' '.join(names)}), not {len(numbers)}: {line[:100]!r}")
    return {"action": action, **dict(zip(names, map(int, numbers), strict=True)), "rationale": rest.strip()[:_MAX_RATIONALE]}


def action_of(answer: Answer) -> Action:
    """Return the answer's action."""
    return Action(answer.action)
