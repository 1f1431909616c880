"""llama.cpp's client against a real server with the real small model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import orjson
import pytest
import pytest_asyncio
import transformers

from services.core.chat_template import reference_ids, rendered
from services.core.fusion_settings import FusionSettings
from services.core.settings import EngineSettings, Settings
from services.doctor.longest_prompt import id_difference
from services.fusion.decide.answer import ANSWER_SCHEMA, AnswerReader
from services.inference.engine import Chunk, EngineError, EngineRequest, TokenIds, Usage
from services.inference.llamacpp_client import LlamaCppEngine
from services.inference.local.process import LocalEngine

from .conftest import request
from .local import asking, running, tokenizer, weights

BARS = "".join(
    f"2024-07-01T{hour:02}:{minute:02} 101.{minute:02} 102.4{hour % 10} 100.9 101.7 84321\n" for hour in range(2) for minute in range(4)
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[LocalEngine]:
    async with running() as running_server:
        yield running_server


@pytest_asyncio.fixture(loop_scope="module")
async def engine(server: LocalEngine) -> AsyncIterator[LlamaCppEngine]:
    async with asking(server) as client:
        yield client


pytestmark = pytest.mark.asyncio(loop_scope="module")


def bars(first: str = "") -> TokenIds:
    """Return a prompt in the model's own ids; `first` makes it another from its first token on."""
    vocabulary = tokenizer()
    start, end = vocabulary.special_id("<|im_start|>"), vocabulary.special_id("<|im_end|>")
    texts = [vocabulary.encode(text) for text in (f"user\n{first}{BARS}", "\n", "assistant\n")]
    return np.concatenate([[start], texts[0], [end], texts[1], [start], texts[2]]).astype(np.int32)


async def ask(engine: LlamaCppEngine, asked: EngineRequest) -> tuple[str, list[Chunk], Usage]:
    chunks = [chunk async for chunk in engine.stream(asked)]
    usage = chunks[-1].usage
    assert usage is not None
    return "".join(chunk.text for chunk in chunks), chunks, usage


async def page(server: LocalEngine, path: str, body: dict[str, Any] | None = None) -> Any:
    async with (
        aiohttp.ClientSession() as session,
        session.request("POST" if body else "GET", server.url + path, data=orjson.dumps(body) if body else None) as answer,
    ):
        return orjson.loads(await answer.read())


async def idle(server: LocalEngine) -> None:
    """Return once the server computes nothing."""
    async with asyncio.timeout(30):
        while any(slot["is_processing"] for slot in await page(server, "/slots")):  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.05)


async def test_the_engine_says_model_context_and_what_its_slots_hold(engine: LlamaCppEngine) -> None:
    info = await engine.info()
    assert (info.model, info.source, info.context_tokens) == (weights().model, "llm", 2_048)
    assert info.kv_capacity_tokens == 5 * 2_048
    assert info.raw["total_slots"] == 5


async def test_an_answer_follows_the_grammar_without_white_space(engine: LlamaCppEngine) -> None:
    ids = bars("grammar ")
    text, chunks, usage = await ask(engine, request(ids, schema=ANSWER_SCHEMA, most=200, left_ms=120_000))
    reader = AnswerReader(thinking=False)
    for chunk in chunks:
        reader.feed(chunk.text)
    assert reader.finish(usage.finish_reason).action
    assert orjson.dumps(orjson.loads(text)).decode() == text
    assert (usage.prompt_tokens, usage.finish_reason) == (ids.size, "stop")


async def test_a_symbols_prompt_is_found_in_its_slot_again(engine: LlamaCppEngine) -> None:
    first, other = bars("one "), bars("other ")
    for _ in range(2):
        await ask(engine, request(first, most=2, left_ms=120_000, affinity="ONE"))
        await ask(engine, request(other, most=2, left_ms=120_000, affinity="OTHER"))
    longer = np.concatenate([first[:-5], tokenizer().encode("one more bar\n")])
    _, chunks, usage = await ask(engine, request(longer, most=2, left_ms=120_000, affinity="ONE"))
    assert usage.cached_tokens is not None
    assert usage.cached_tokens >= first.size - 6
    assert next(chunk.cached_tokens for chunk in chunks if chunk.cached_tokens is not None) == usage.cached_tokens


async def test_a_prefix_sent_ahead_is_found_and_the_current_one_stays(engine: LlamaCppEngine) -> None:
    current, following = bars("current "), bars("following ")
    await ask(engine, request(current, most=1, left_ms=120_000, affinity="AHEAD"))
    assert (await engine.warm("f" * 32, "AHEAD", following)).prompt_tokens == following.size
    for ids in (current, following):
        usage = (await ask(engine, request(ids, most=1, left_ms=120_000, affinity="AHEAD")))[2]
        assert usage.cached_tokens is not None
        assert usage.cached_tokens >= ids.size - 2


async def test_labels_are_scored_over_the_whole_vocabulary(engine: LlamaCppEngine, server: LocalEngine) -> None:
    ids = bars("labels ")
    labels = np.array([tokenizer().encode(word)[0] for word in ("buy", "sell", "hold", "abstain", " Thessalon")], np.int32)
    scores = await engine.score(request(ids, left_ms=120_000), labels)
    said = await page(server, "/completion", {"prompt": ids.tolist(), "n_predict": 1, "n_probs": 60_000, "temperature": 0})
    by_id = {one["id"]: one["logprob"] for one in said["completion_probabilities"][0]["top_logprobs"]}
    assert len(by_id) == tokenizer().vocab_size
    np.testing.assert_allclose(scores.logprobs, [by_id[label] for label in labels.tolist()], atol=0.05)
    assert np.isclose(sum(np.exp(list(by_id.values()))), 1, atol=1e-3)


async def test_a_deadline_ends_the_call_on_the_server(engine: LlamaCppEngine, server: LocalEngine) -> None:
    with pytest.raises(EngineError, match="engine_timeout"):
        await ask(engine, request(bars("late "), most=1_800, left_ms=1_500, affinity="LATE"))
    await idle(server)


async def test_the_products_ids_are_the_servers_own(server: LocalEngine) -> None:
    texts = [BARS, "system\nYou decide.\n", " leading, trailing \n\n\ttabs é ½ 日本 1234567 don't <|im_start|>\n", '{"action":"buy"}']
    for text, ids in zip(texts, tokenizer().encode_batch(texts), strict=True):
        said = await page(server, "/tokenize", {"content": text, "parse_special": False})
        assert ids.tolist() == said["tokens"]


async def test_a_whole_prompt_has_the_ids_of_the_models_own_template_as_transformers_applies_it() -> None:
    file = weights().tokenizer
    engine = EngineSettings(tokenizer_file=file, chat_template="chatml")
    settings = Settings(engine=engine, fusion=FusionSettings(intervals=["5m"], window_bars=40, epoch_slots=8))
    assert await id_difference(settings, tokenizer(), file) is None
    messages = [{"role": "system", "content": "You decide.\n"}, {"role": "user", "content": BARS}]
    theirs = transformers.AutoTokenizer.from_pretrained(file.parent)
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert reference_ids(file, rendered(file, messages, thinking=False)).tolist() == list(expected)
