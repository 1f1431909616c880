"""Hides one fact in a long prompt and asks for it: whether a model reads what stands far back, and how long such a prompt takes.

The rest of the prompt is made-up bars, as in a worker's prompts. An answer counts as found when it holds the fact's number.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Final

import numpy as np
import orjson
from rich.table import Table

from services.core.clock import SystemClock
from services.inference.engine import Engine, EngineError, EngineRequest, Sampling, TokenIds, Usage

DEPTHS: Final = (0.1, 0.5, 0.9)
"""Where the fact stands, as a share of the prompt."""
_ANSWER_TOKENS: Final = 24
_LIMIT_MS: Final = 3_600_000
SYSTEM: Final = "You answer questions about a text.\n"
_FACT: Final = "Note: the access code is {code}.\n"
_QUESTION: Final = "\nWhat is the access code in the note? Answer with the number alone.\n"

Encode = Callable[[str, str], TokenIds]
"""Makes ids of a whole prompt: the system's text and the user's."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """One question: where the fact stood, what came back and when; milliseconds."""

    depth: float
    found: bool
    answer: str
    prompt_tokens: int
    cached_tokens: int | None
    first_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class Needles:
    """All questions to one engine."""

    engine: str
    model: str
    source: str
    prompt_tokens: int
    rows: list[Hidden] = field(default_factory=list)

    def json(self) -> bytes:
        """Return the questions as JSON."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


async def search(
    engine: Engine,
    encode: Encode,
    *,
    length: int,
    rounds: int,
    say: Callable[[str], None],
    keep: Callable[[Needles], None] = lambda _: None,
    depths: Sequence[float] = DEPTHS,
) -> Needles:
    """Ask `rounds` times at each of `depths`, each time in another prompt of at most `length` tokens; raise EngineError.

    Prompts share no start, so that first tokens are those of cold prompts. `keep` gets what is there after each answer: at 128K on a CPU
    one takes hours.
    """
    info = await engine.info()
    made = Needles(info.name, info.model, info.source, length)
    source = np.random.default_rng(7)
    for _ in range(rounds):
        for depth in depths:
            code = int(source.integers(10_000, 99_999))
            user, ids = _prompt(encode, source, code, depth, length - _ANSWER_TOKENS)
            row = await _asked(engine, user, ids, code, depth)
            made.rows.append(row)
            keep(made)
            say(f"fact at {depth:.0%} of {row.prompt_tokens:,} tokens: {'found' if row.found else 'not found'}, {row.answer!r}")
    return made


def table(made: Needles) -> Table:
    """Return the questions for people."""
    shown = Table(title=f"{made.engine}, {made.model}: one fact in prompts of {made.prompt_tokens:,} tokens")
    for column in ("fact at", "found", "answer"):
        shown.add_column(column)
    for column in ("tokens", "first token ms", "ms"):
        shown.add_column(column, justify="right")
    for row in made.rows:
        said = row.answer.replace("\n", " ")[:40]
        found = "yes" if row.found else "no"
        shown.add_row(f"{row.depth:.0%}", found, said, f"{row.prompt_tokens:,}", f"{row.first_ms:,.0f}", f"{row.total_ms:,.0f}")
    return shown


def _prompt(encode: Encode, source: np.random.Generator, code: int, depth: float, most: int) -> tuple[str, TokenIds]:
    """Return the user's text and the ids of a prompt of at most `most` tokens, within a bar's length of it."""
    fixed = encode(SYSTEM, _FACT.format(code=code) + _QUESTION).size
    bars = [_bar(source) for _ in range(64)]
    a_bar = (encode(SYSTEM, "".join(bars) + _FACT.format(code=code) + _QUESTION).size - fixed) / len(bars)
    count = int((most - fixed) / a_bar)
    if count < 1:
        raise ValueError(f"a prompt of {most} tokens has no room for the question: give --length {fixed + 256} or more")
    while len(bars) < count:
        bars.append(_bar(source))
    while count:
        kept = bars[:count]
        kept.insert(round(depth * count), _FACT.format(code=code))
        user = "".join(kept) + _QUESTION
        ids = encode(SYSTEM, user)
        if ids.size <= most:
            return user, ids
        count -= max(1, int((ids.size - most) / a_bar))
    raise ValueError(f"a prompt of {most} tokens has no room for a bar beside the question")


def _bar(source: np.random.Generator) -> str:
    open_, *offsets = source.integers([10_000, -99, -99, -99, 10], [99_999, 99, 99, 99, 99])
    return f"{open_ / 100:.2f} {offsets[0]:+05d} {offsets[1]:+05d} {offsets[2]:+05d} {offsets[3]}e3\n"


async def _asked(engine: Engine, user: str, ids: TokenIds, code: int, depth: float) -> Hidden:
    request = EngineRequest(
        rid=uuid.uuid4().hex,
        affinity="NEEDLE",
        mode="fast",
        input_ids=ids,
        sampling=Sampling(_ANSWER_TOKENS),
        deadline_ms=SystemClock().now_ms() + _LIMIT_MS,
        text=lambda: (SYSTEM, user),
        view={},
    )
    began = time.perf_counter()
    first_ms: float | None = None
    usage: Usage | None = None
    text = ""
    async with aclosing(engine.stream(request)) as chunks:
        async for chunk in chunks:
            if first_ms is None and chunk.text:
                first_ms = (time.perf_counter() - began) * 1000
            text += chunk.text
            usage = chunk.usage or usage
    total_ms = (time.perf_counter() - began) * 1000
    if usage is None:
        raise EngineError("engine_broke", f"{engine.name} ended an answer without usage")
    return Hidden(
        depth=depth,
        found=str(code) in text,
        answer=text.strip()[:200],
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        first_ms=round(total_ms if first_ms is None else first_ms, 1),
        total_ms=round(total_ms, 1),
    )
