"""Asks an engine the test prompts and judges its answers: are they valid, do they act where it paid, do their convictions mean anything.

Everything is held against the majority's action and the rule of the setups alone, with intervals that keep neighbouring days together.
"""

from __future__ import annotations

import asyncio
import math
import re
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.core.clock import Clock, SystemClock
from services.core.settings import EngineSettings
from services.core.tokenizer import Tokenizer
from services.fusion.decide.answer import RATIONALE_TOKENS, Answer, AnswerError, AnswerReader, Entry, answer_regex
from services.fusion.service import load_tokenizer
from services.inference.connect import connect
from services.inference.engine import Engine, EngineError, EngineRequest, Sampling, Usage
from services.scoring.report.statistics import bootstrap_mean, wilson
from services.training.answers_so_far import AnswersSoFar, Reply
from services.training.examples import Example
from services.training.setups import sentence, setup_of
from services.training.teacher import Facts

_PATIENCE_MS: Final = 120_000
_ANSWER_TOKENS: Final = 40
_SEED: Final = 0
_NUMBER: Final = re.compile(r"(?<![\w.])[+-]?[0-9]+(?:\.[0-9]+)?(?![\w])")
_NAMED: Final = re.compile(r"\b(macd_hist|ret_5|rsi)\b(?: is| at| of|,? but rsi is)? ([+-]?[0-9]+(?:\.[0-9]+)?)")
_UNQUOTED: Final = {"close": 1.0, "atr": 1.0, "macd_hist": 0.0}
"""Facts that a setup needs and not every sentence quotes: none of them changes the words of one that does not quote it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer to a test prompt. `answer` is None where it is not valid, and `error` says why."""

    example: Example
    text: str
    answer: Answer | None
    error: str | None
    usage: Usage | None
    facts: dict[str, str]
    """Those of the prompt, as it writes them."""


async def ask_engine(
    settings: EngineSettings,
    examples: Sequence[Example],
    *,
    results: Path | None,
    at_once: int,
    grammar: bool,
    progress: Callable[[str], None],
) -> list[Asked]:
    """Ask the engine of `settings`, as `ask_all` does, but for what an interrupted evaluation into `results` has asked already.

    Raises EngineError where it cannot be reached, as no answer is no verdict; ValueError where `results` were begun with another question.
    """
    clock, tokenizer = SystemClock(), load_tokenizer(settings)
    engine = connect(settings, clock)
    try:
        asked = {"model": (await engine.info()).model, "tokenizer": tokenizer.fingerprint, "grammar": grammar}
        with AnswersSoFar(results, asked) as so_far:
            if so_far:
                progress(f"{len(so_far)} answers are there already")
            return await ask_all(engine, examples, tokenizer, clock, so_far, at_once=at_once, grammar=grammar, progress=progress)
    finally:
        await engine.close()


async def ask_all(
    engine: Engine,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    clock: Clock,
    so_far: AnswersSoFar,
    *,
    at_once: int,
    grammar: bool = True,
    progress: Callable[[str], None] = lambda _line: None,
) -> list[Asked]:
    """Ask each test prompt once, greedily; an engine that does not answer is an answer that is not valid."""
    permits = asyncio.Semaphore(at_once)
    done = 0

    async def one(example: Example) -> Asked:
        nonlocal done
        facts = Facts.of(tokenizer.decode(example.prompt_ids)).texts
        reply = so_far.get(example)
        if reply is None:
            try:
                async with permits:
                    reply = await _ask(engine, example, tokenizer, clock, grammar=grammar)
            except EngineError as error:
                return Asked(example, "", None, str(error), None, facts)
            so_far.add(example, reply)
        done += 1
        if done % 50 == 0:
            progress(f"{done} of {len(examples)} answers")
        try:
            reader = AnswerReader(thinking=False)
            reader.feed(reply.text)
            return Asked(example, reply.text, reader.finish(reply.finish_reason), None, reply.usage, facts)
        except AnswerError as error:
            return Asked(example, reply.text, None, str(error), reply.usage, facts)

    return list(await asyncio.gather(*(one(example) for example in examples)))


async def _ask(engine: Engine, example: Example, tokenizer: Tokenizer, clock: Clock, *, grammar: bool) -> Reply:
    """Return what the engine says; raise EngineError."""
    prompt = example.prompt_ids
    sampling = Sampling(_ANSWER_TOKENS + RATIONALE_TOKENS, regex=answer_regex(rationale=True) if grammar else None)
    request = EngineRequest(
        rid=uuid.uuid4().hex,
        affinity=example.about.symbol,
        mode="fast",
        input_ids=prompt,
        sampling=sampling,
        deadline_ms=clock.now_ms() + _PATIENCE_MS,
        text=lambda: ("", tokenizer.decode(prompt)),
        view={},
    )
    usage, text = None, ""
    async with aclosing(engine.stream(request)) as chunks:
        async for chunk in chunks:
            text += chunk.text
            usage = chunk.usage or usage
    return Reply(text, usage)


def judge(asked: Sequence[Asked]) -> dict[str, Any]:
    """Return the figures of a test as plain values; each with its 95 % interval as `[value, low, high]`."""
    ordered = sorted(asked, key=lambda one: (one.example.about.time, one.example.about.symbol))
    valid = [one for one in ordered if one.answer is not None]
    block = max(1, round(math.cbrt(len(ordered)) * 3))
    majority = Counter(one.example.about.action for one in ordered).most_common(1)[0][0]
    actions: dict[str, list[str | None]] = {
        "model": [None if one.answer is None else one.answer.action for one in ordered],
        "rule": [*(one.example.about.rule for one in ordered)],
        "majority": [*[majority] * len(ordered)],
    }
    taught = [one.example.about.action for one in ordered]
    figures: dict[str, Any] = {
        "prompts": len(ordered),
        "first": ordered[0].example.about.time,
        "last": ordered[-1].example.about.time,
        "majority": majority,
        "valid": _wilson(len(valid), len(ordered)),
        "errors": dict(Counter(one.error or "" for one in ordered if one.answer is None).most_common(5)),
        "taught": dict(Counter(taught)),
        "said": dict(Counter(action or "not valid" for action in actions["model"])),
    }
    for name, said in actions.items():
        right = np.array([one == other for one, other in zip(said, taught, strict=True)], dtype=np.float64)
        figures[f"accuracy_{name}"] = _mean(right, block)
        figures[f"return_bps_{name}"] = _mean(1e4 * _returns(ordered, said), block)
    figures["return_bps_model_less_rule"] = _mean(1e4 * (_returns(ordered, actions["model"]) - _returns(ordered, actions["rule"])), block)
    figures |= _calibration(valid, block)
    true = [_true(one) for one in valid]
    figures["rationales_true_to_the_prompt"] = _wilson(sum(true), len(true))
    figures["rationales_agree_with_their_numbers"] = _wilson(sum(_agrees(one) for one in valid), len(valid))
    figures["rationales_given"] = _wilson(sum(bool(one.answer is not None and one.answer.rationale) for one in valid), len(valid))
    tokens = [one.usage.output_tokens for one in valid if one.usage is not None]
    figures["tokens"] = sum(tokens) / len(tokens) if tokens else None
    return figures


def row_of(asked: Asked) -> dict[str, Any]:
    """Return an answer as a line of the results."""
    return {
        "about": asdict(asked.example.about),
        "prompt_tokens": int(asked.example.prompt_ids.size),
        "text": asked.text,
        "error": asked.error,
    }


def _returns(asked: Sequence[Asked], said: Sequence[str | None]) -> NDArray[np.float64]:
    """Return what each answer made: that of the rule's position where it is taken, 0 where none is.

    A position on the other side has not been judged by the market's path, and counts as none.
    """
    made = [
        one.example.about.return_net or 0.0 if action in {"buy", "sell"} and action == one.example.about.rule else 0.0
        for one, action in zip(asked, said, strict=True)
    ]
    return np.array(made, dtype=np.float64)


def _calibration(valid: Sequence[Asked], block: int) -> dict[str, Any]:
    """Return conviction against what was paid, over the positions that the model took and the market judged."""
    pairs = [
        (one.answer.conviction / 100, bool(one.example.about.paid))
        for one in valid
        if isinstance(one.answer, Entry) and one.answer.action == one.example.about.rule and one.example.about.paid is not None
    ]
    said = np.array([conviction for conviction, _ in pairs], dtype=np.float64)
    paid = np.array([float(was) for _, was in pairs], dtype=np.float64)
    base = paid.mean() if len(paid) else 0.0
    return {
        "positions": len(pairs),
        "mean_conviction": float(said.mean()) if len(said) else None,
        "paid": _mean(paid, block) if len(paid) else None,
        "paid_less_conviction": _mean(paid - said, block) if len(paid) else None,
        "brier_less_constant": _mean((said - paid) ** 2 - (base - paid) ** 2, block) if len(paid) else None,
    }


def _true(asked: Asked) -> bool:
    """Return whether every number of the rationale is a fact of the prompt, written as there, under its own name where it has one."""
    rationale = "" if asked.answer is None else asked.answer.rationale
    known = set(asked.facts.values())
    numbers = _NUMBER.findall(rationale)
    named = all(asked.facts.get(name) == number for name, number in _NAMED.findall(rationale))
    return bool(rationale) and named and all(number in known for number in numbers)


def _agrees(asked: Asked) -> bool:
    """Return whether the rationale is what the setups' sentence says of the numbers that the rationale quotes."""
    rationale = "" if asked.answer is None else asked.answer.rationale
    texts = dict(_NAMED.findall(rationale))
    values = {} if not texts else _UNQUOTED | {name: float(text) for name, text in texts.items()}
    return rationale == sentence(setup_of(values), values, {"macd_hist": "", "ret_5": "", "rsi": ""} | texts)


def _wilson(hits: int, of: int) -> list[float] | None:
    found = wilson(hits, of)
    return None if found is None else [round(found.value, 4), round(found.low or 0.0, 4), round(found.high or 0.0, 4)]


def _mean(values: NDArray[np.float64], block: int) -> list[float | None] | None:
    found = bootstrap_mean(values, block=block, seed=_SEED)
    if found is None:
        return None
    return [None if part is None else round(part, 4) for part in (found.value, found.low, found.high)]
