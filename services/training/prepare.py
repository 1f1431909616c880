"""From exports to examples: groups the answers to one prompt, asks the teacher, and encodes prompt and answer as the worker would.

A share of the prompts is asked in the other ways that a worker asks (one token, JSON, no rationale), with the same facts.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import orjson

from services.core.errors import ServiceError
from services.core.tokenizer import Tokenizer
from services.fusion.prompt import wording
from services.fusion.prompt.blocks import Encoder
from services.fusion.prompt.chat import TEMPLATES, Piece
from services.fusion.prompt.labels import labels_of, question
from services.fusion.prompt.rules import rules
from services.fusion.prompt.short_tail import flash_text
from services.fusion.prompt.version import version_of
from services.inference.engine import TokenIds
from services.strategy.folder import shipped
from services.training.examples import About, Example, Part, check_order
from services.training.teacher import Row, Taught, Teacher, TrackRecord, opens_position, teach

Kind = Literal["line", "line_short", "flash", "json"]
_KINDS: Final[tuple[tuple[Kind, float], ...]] = (("line", 0.70), ("flash", 0.16), ("line_short", 0.07), ("json", 0.07))
_PARTS: Final[tuple[Part, ...]] = ("train", "test")
_SHOWN: Final = 0
_DECISION: Final = 1
_RATIONALE: Final = 2
"""Roles of an example's tokens: not taught, taught as the decision, and taught as its reason or the answer's end."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many examples are wanted, and how long one may be, in tokens.

    `train` has a count for each export in turn, and its last one stands for all that follow.
    """

    train: Sequence[int]
    test: int
    max_tokens: int
    seed: int = 0
    teacher: Teacher = "outcome"


class Prepared(NamedTuple):
    """The examples, and what was left out, by reason."""

    examples: list[Example]
    left_out: Counter[str]


def prepare(exports: Sequence[Path], tokenizer: Tokenizer, template: str, wanted: Wanted, progress: Callable[[str], None]) -> Prepared:
    """Return the examples of these exports of `aquiline export training`.

    Raises ServiceError where one cannot be read or no position has an outcome, ValueError where template and tokenizer do not fit, and
    ExamplesError where a test prompt is of a time before that of a training prompt.

    Half of those for training are positions where there are enough; those for testing are as they come. What a kind of position made
    is counted over the training part.
    """
    writer = _Writer(tokenizer, template)
    rows = {(export, part): list(_groups(export / f"plain-{part}.jsonl")) for export in exports for part in _PARTS}
    to_train = [row for (_, part), groups in rows.items() if part == "train" for group in groups for row in group]
    record = TrackRecord.of(to_train)
    if not record.judged and any(opens_position(row) for row in to_train):
        raise ServiceError(
            f"no position in the training part of {', '.join(map(str, exports))} has an outcome, so that nothing says which of them paid: "
            "export again with --outcomes"
        )
    examples, left_out = [], Counter[str]()
    for (export, part), groups in rows.items():
        place = min(exports.index(export), len(wanted.train) - 1)
        count = wanted.train[place] if part == "train" else wanted.test
        known = _taught(groups, record, wanted, left_out)
        chosen = _balanced(known, count) if part == "train" else known[:count]
        made = 0
        for group, taught in chosen:
            kind = "line" if part == "test" else _kind_of(group[0].id, wanted.seed)
            example = writer.example(group[0], taught, kind, part, export.name)
            if isinstance(example, str):
                left_out[example] += 1
            elif example.ids.size > wanted.max_tokens:
                left_out[f"longer than {wanted.max_tokens} tokens"] += 1
            else:
                examples.append(example)
                made += 1
        progress(f"{export.name}, {part}: {made} examples")
    check_order(examples)
    return Prepared(examples, left_out)


def made_with(tokenizer: Tokenizer, template: str) -> dict[str, Any]:
    """Return what decides which ids a text became, and the version of the shipped strategy's prompts."""
    return {"tokenizer": tokenizer.fingerprint, "chat_template": template, "prompt_version": version_of(shipped())}


def _groups(file: Path) -> Iterator[list[Row]]:
    """Yield the rows of a file by prompt."""
    try:
        lines = file.read_bytes().split(b"\n")
        rows = [Row.of(orjson.loads(line)) for line in lines if line]
    except OSError as error:
        raise ServiceError(f"{file} cannot be read: {error.strerror}; `aquiline export training` writes it") from error
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ServiceError(f"{file} is no export of `aquiline export training`: {error!r}") from error
    by_prompt: dict[str, list[Row]] = {}
    for row in rows:
        if row.mode == "fast":
            by_prompt.setdefault(row.prompt_hash, []).append(row)
    yield from by_prompt.values()


def _taught(groups: Sequence[list[Row]], record: TrackRecord, wanted: Wanted, left_out: Counter[str]) -> list[tuple[list[Row], Taught]]:
    """Return the prompts with what should have been answered, in an order that the seed decides."""
    taught = []
    for group in sorted(groups, key=lambda group: _draw(group[0].id, wanted.seed)):
        answer = teach(group, record, wanted.teacher)
        if answer is None:
            left_out["not filled or not scored"] += 1
        else:
            taught.append((group, answer))
    return taught


def _balanced(taught: Sequence[tuple[list[Row], Taught]], count: int) -> list[tuple[list[Row], Taught]]:
    """Return at most `count` prompts, half of them with a position where there are enough."""
    positions = [one for one in taught if one[1].action in {"buy", "sell"}]
    others = [one for one in taught if one[1].action not in {"buy", "sell"}]
    half = min(len(positions), max(count // 2, count - len(others)))
    return positions[:half] + others[: count - half]


def _draw(name: str, seed: int) -> float:
    """Return a number in [0, 1) that depends on name and seed alone."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=6).digest()) / 2**48


def _kind_of(name: str, seed: int) -> Kind:
    drawn = _draw(f"kind {name}", seed)
    for kind, share in _KINDS:
        drawn -= share
        if drawn < 0:
            return kind
    return _KINDS[0][0]


class _Writer:
    """Writes examples with one tokenizer and chat template."""

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        if template not in TEMPLATES:
            raise ValueError(f"--chat-template {template!r}: expected one of {', '.join(TEMPLATES)}")
        self._template = TEMPLATES[template]
        self._encoder = Encoder(tokenizer, self._template)
        self._tokenizer = tokenizer
        labels = labels_of(tokenizer)
        self._labels: dict[str, str] = dict(labels.texts)  # type: ignore[arg-type]
        self._questions: dict[Kind, str] = {
            "line": wording.EXPLAINED_QUESTION["line"],
            "line_short": wording.QUESTION["line"],
            "json": wording.EXPLAINED_QUESTION["json"],
            "flash": question(labels),
        }
        self._tail = tuple(self._template.tail("fast"))
        end = next((piece for piece in self._template.next_user if not isinstance(piece, str)), None)
        if end is None:
            raise ValueError(
                f"chat template {template!r} has no token that ends an answer, so that none can be taught; use the model's own"
            )
        self._end = self._encoder.encode(end)

    def example(self, row: Row, taught: Taught, kind: Kind, part: Part, shape: str) -> Example | str:
        """Return the example of one prompt, or why there is none."""
        asked = next((one for one in self._asked() if row.prompt.endswith(one)), None)
        if asked is None:
            return "asked in words of another version"
        ids = self._prompt(row.system, row.prompt)
        if hashlib.sha256(ids.astype("<i4").tobytes()).hexdigest() != row.prompt_hash:
            return "the ids differ from those that the worker sent"
        if self._questions[kind] != asked:
            form: wording.AnswerForm = "json" if kind == "json" else "line"
            before = next((one for one in wording.CONTRACT.values() if row.system.endswith(one)), None)
            if before is None:
                return "the answer contract is in words of another version"
            system, user = row.system.removesuffix(before) + wording.CONTRACT[form], row.prompt.removesuffix(asked)
            if kind == "flash":
                if system != rules(shipped(), form):
                    return "mode flash with another strategy than the shipped one"
                system, user = rules(shipped(), form, flash=True), flash_text(user, shipped(), self._questions[kind])
            else:
                user += self._questions[kind]
            ids = self._prompt(system, user)
        pieces = [(ids, _SHOWN)]
        if kind == "flash":
            label = self._labels[taught.action if taught.action in self._labels else "hold"]
            pieces.append((self._tokenizer.encode(label), _DECISION))
            # The worker asks why in a second turn.
            turn = (*self._template.next_user, wording.RATIONALE_QUESTION, *self._tail)
            pieces.extend((one, _SHOWN) for one in self._encoder.encode_all(turn))
            pieces.append((self._tokenizer.encode(taught.rationale), _RATIONALE))
        else:
            answer = _answer(taught, kind)
            encoded = self._tokenizer.encode(answer)
            decided = _common(encoded, self._tokenizer.encode(answer[: _decision_end(answer)]))
            pieces += [(encoded[:decided], _DECISION), (encoded[decided:], _RATIONALE)]
        pieces.append((self._end, _RATIONALE))
        about = About(row.id, part, kind, row.symbol, row.time, shape, taught.action, taught.rule, taught.paid, taught.return_net)
        roles = np.concatenate([np.full(one.size, role) for one, role in pieces])
        return Example(about, np.concatenate([one for one, _ in pieces]).astype(np.int32), roles != _SHOWN, roles == _DECISION)

    def _asked(self) -> Iterator[str]:
        for by_form in (wording.EXPLAINED_QUESTION, wording.QUESTION):
            yield from by_form.values()

    def _prompt(self, system: str, user: str) -> TokenIds:
        lines = user.splitlines(keepends=True)
        pieces: list[Piece] = [*self._template.head, system, *self._template.middle, *lines, *self._tail]
        return np.concatenate(self._encoder.encode_all(pieces))


def _decision_end(answer: str) -> int:
    """Return where the decision of an answer ends and its rationale begins."""
    found = re.search(r'\n|,"rationale"', answer)
    return len(answer) if found is None else found.start()


def _common(one: TokenIds, other: TokenIds) -> int:
    """Return how many tokens two texts have in common from the start."""
    size = min(one.size, other.size)
    return int(np.argmin(np.append(one[:size] == other[:size], False)))


def _answer(taught: Taught, kind: Kind) -> str:
    if kind == "line_short":
        return taught.line
    if kind == "line":
        return f"{taught.line}\n{taught.rationale}"
    action, _, rest = taught.line.partition(" ")
    names = ("conviction", "horizon", "entry", "stop", "target")
    values: dict[str, Any] = {"action": action}
    values |= {"reason": rest} if action == "abstain" else dict(zip(names, map(int, rest.split()), strict=False))
    return orjson.dumps(values | {"rationale": taught.rationale}).decode()
