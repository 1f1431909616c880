"""One round of what a worker asks of an SGLang server, through the worker's own client: each check with what the server said.

`python -m benchmarks.gpu.contract --url URL --results FILE` ends with status 1 when a check fails. Try a new release of SGLang with it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from benchmarks.gpu.client import random_ids
from services.core.clock import SystemClock
from services.fusion.decide.answer import ANSWER_SCHEMA, AnswerReader, answer_regex
from services.inference.engine import THOUGHT_END, EngineRequest, Sampling, TokenIds, Usage
from services.inference.sglang_client import SGLangEngine

_CLOCK = SystemClock()
_LIMIT_MS = 60_000
_PROMPT_TOKENS = 4_096
_LABELS = np.array([100, 200, 300, 400], np.int32)
_IDLE_S = 5.0


class BrokenError(Exception):
    """A check failed; the text says what was expected and what came."""


def expect(condition: bool, said: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise BrokenError with `said` unless `condition` holds."""
    if not condition:
        raise BrokenError(said)


@dataclass
class Round:
    """The checks of one server, in order."""

    engine: SGLangEngine
    scoring: SGLangEngine
    """The same server, asked as where any worker scores labels (`engine.scores`)."""
    found: dict[str, Any] = field(default_factory=dict)

    async def check(self, name: str, work: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        """Run one check and note what it saw, or why it failed."""
        began = time.perf_counter()
        try:
            self.found[name] = {"ok": True, **await work()}
        except Exception as error:  # noqa: BLE001 - the round goes on, and the error is its result
            self.found[name] = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        self.found[name]["ms"] = round((time.perf_counter() - began) * 1000, 1)
        print(f"{name}: {json.dumps(self.found[name])}", flush=True)

    async def run(self) -> bool:
        """Run all checks; return whether every one holds."""
        for name, work in (
            ("what it is", self._info),
            ("token ids in, all read", self._ids),
            ("cached tokens", self._cached),
            ("answer under the grammar", self._grammar),
            ("answer under the grammar, sampled", self._sampled),
            ("answer on a line, under a regular expression", self._line),
            ("thought, then the answer", self._thought),
            ("a prefix sent ahead", self._ahead),
            ("log-probabilities of labels", self._labels),
            ("scored and other calls at once", self._mixed),
            ("a call given up ends", self._abort),
            ("speculation", self._speculation),
        ):
            await self.check(name, work)
        return all(one["ok"] for one in self.found.values())

    async def _info(self) -> dict[str, Any]:
        info = await self.engine.info()
        keys = ("version", "attention_backend", "speculative_algorithm", "quantization", "page_size", "max_total_num_tokens")
        return {key: info.raw.get(key) for key in keys}

    async def _ids(self) -> dict[str, Any]:
        usage = (await _ask(self.engine, _prompt("ids"), Sampling(8, ignore_eos=True)))[1]
        expect(usage.prompt_tokens == _PROMPT_TOKENS, f"{usage.prompt_tokens} prompt tokens were read, {_PROMPT_TOKENS} sent")
        expect(usage.output_tokens == 8, f"{usage.output_tokens} tokens came, 8 were asked for")
        return {"prompt_tokens": usage.prompt_tokens}

    async def _cached(self) -> dict[str, Any]:
        ids = _prompt("cached")
        await _ask(self.engine, ids, Sampling(1))
        usage = (await _ask(self.engine, np.concatenate([ids, _prompt("tail", 64)]), Sampling(1)))[1]
        least = _PROMPT_TOKENS - 64  # a page at most, and the last tokens under EAGLE
        expect((usage.cached_tokens or 0) >= least, f"{usage.cached_tokens} tokens were cached, at least {least} expected")
        return {"cached_tokens": usage.cached_tokens}

    async def _grammar(self) -> dict[str, Any]:
        text, usage = await _ask(self.engine, _prompt("grammar"), Sampling(300, 0.0, ANSWER_SCHEMA))
        return {"action": _action(text, usage), "output_tokens": usage.output_tokens}

    async def _sampled(self) -> dict[str, Any]:
        sampling = Sampling(300, 0.6, ANSWER_SCHEMA, top_p=0.95, seed=7)
        texts = [await _ask(self.engine, _prompt(f"sampled {n}"), sampling) for n in range(4)]
        return {"actions": [_action(text, usage) for text, usage in texts]}

    async def _line(self) -> dict[str, Any]:
        text, usage = await _ask(self.engine, _prompt("line"), Sampling(60, regex=answer_regex(rationale=False)))
        return {"action": _action(text, usage), "answer": text[:60], "output_tokens": usage.output_tokens}

    async def _thought(self) -> dict[str, Any]:
        ids = _prompt("thought")
        thought, usage = await _ask(self.engine, ids, Sampling(64, 0.6, top_p=0.95, seed=7, stop=THOUGHT_END))
        expect(THOUGHT_END not in thought, f"the text to stop at is in {thought!r}")
        text, after = await _ask(self.engine, np.concatenate([ids, _prompt("thought ids", 64)]), Sampling(300, 0.0, ANSWER_SCHEMA))
        expect((after.cached_tokens or 0) >= _PROMPT_TOKENS - 64, f"{after.cached_tokens} tokens of the prompt were cached")
        return {"thought_tokens": usage.output_tokens, "finish": usage.finish_reason, "action": _action(text, after)}

    async def _ahead(self) -> dict[str, Any]:
        ids = _prompt("ahead")
        await self.engine.warm(uuid4().hex, "AHEAD", ids)
        usage = (await _ask(self.engine, np.concatenate([ids, _prompt("behind", 32)]), Sampling(1)))[1]
        expect((usage.cached_tokens or 0) >= _PROMPT_TOKENS - 64, f"{usage.cached_tokens} tokens were cached")
        return {"cached_tokens": usage.cached_tokens}

    async def _labels(self) -> dict[str, Any]:
        scores = await self.scoring.score(_request(_prompt("labels"), Sampling(1)), _LABELS)
        expect(bool((scores.logprobs <= 0).all()) and np.exp(scores.logprobs).sum() <= 1 + 1e-3, f"log-probabilities {scores.logprobs}")
        return {"logprobs": [round(float(one), 3) for one in scores.logprobs]}

    async def _mixed(self) -> dict[str, Any]:
        """Scored calls, streamed answers and prefixes in the same batches, several times: what ended 0.5.17 without `engine.scores`."""
        for number in range(4):
            await asyncio.gather(
                *(self.scoring.score(_request(_prompt(f"mixed {number} {n}"), Sampling(1)), _LABELS) for n in range(3)),
                *(_ask(self.scoring, _prompt(f"mixed text {number} {n}"), Sampling(200, 0.0, ANSWER_SCHEMA)) for n in range(3)),
                self.scoring.warm(uuid4().hex, "MIXED", _prompt(f"mixed ahead {number}")),
            )
        return {"batches": 4}

    async def _abort(self) -> dict[str, Any]:
        stream = self.engine.stream(_request(_prompt("abort"), Sampling(2_000, ignore_eos=True)))
        async for chunk in stream:
            if chunk.text:
                break
        began = time.perf_counter()
        await stream.aclose()
        async with asyncio.timeout(_IDLE_S):
            while (load := await self.engine.load()) is not None and load.running:
                await asyncio.sleep(0.005)
        return {"idle_after_ms": round((time.perf_counter() - began) * 1000, 1)}

    async def _speculation(self) -> dict[str, Any]:
        usage = (await _ask(self.engine, _prompt("speculation"), Sampling(128, ignore_eos=True)))[1]
        speculates = (await self.engine.info()).raw.get("speculative_algorithm") is not None
        expect((usage.accept_length is not None) == speculates, f"accept_length is {usage.accept_length}")
        expect(usage.accept_length is None or usage.accept_length >= 1, f"accept_length is {usage.accept_length}")
        return {"accept_length": usage.accept_length}


def _prompt(name: str, tokens: int = _PROMPT_TOKENS) -> TokenIds:
    return np.array(random_ids(f"contract {name}", tokens), np.int32)


def _request(ids: TokenIds, sampling: Sampling) -> EngineRequest:
    return EngineRequest(uuid4().hex, "ANY", "fast", ids, sampling, _CLOCK.now_ms() + _LIMIT_MS, lambda: ("", ""), {})


async def _ask(engine: SGLangEngine, ids: TokenIds, sampling: Sampling) -> tuple[str, Usage]:
    text, usage = "", None
    async with aclosing(engine.stream(_request(ids, sampling))) as chunks:
        async for chunk in chunks:
            text += chunk.text
            usage = chunk.usage or usage
    if usage is None:
        raise BrokenError("the stream ended without usage")
    return text, usage


def _action(text: str, usage: Usage) -> str:
    reader = AnswerReader(thinking=False)
    reader.feed(text)
    return reader.finish(usage.finish_reason).action


async def _run(url: str) -> tuple[bool, dict[str, Any]]:
    made = Round(SGLangEngine(url, _CLOCK), SGLangEngine(url, _CLOCK, scores=True))
    try:
        return await made.run(), made.found
    finally:
        await made.engine.close()
        await made.scoring.close()


def main() -> None:
    """Run the round against `--url` and write what was found into `--results` under `--name`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--name", default="server")
    parser.add_argument("--results", type=Path, required=True)
    arguments = parser.parse_args()
    holds, found = asyncio.run(_run(arguments.url))
    kept = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    arguments.results.write_text(json.dumps({**kept, arguments.name: found}, indent=1) + "\n")
    raise SystemExit(0 if holds else 1)


if __name__ == "__main__":
    main()
