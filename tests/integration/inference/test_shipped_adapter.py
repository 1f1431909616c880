"""The weights that ship are those of their checksums, and with the adapter the local engine follows a setup and says what it reads."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from services.core.tokenizer import Tokenizer
from services.fusion.decide.answer import AnswerReader, answer_regex
from services.fusion.prompt.blocks import Encoder
from services.fusion.prompt.chat import TEMPLATES
from services.fusion.prompt.rules import rules
from services.inference.engine import EngineRequest, Sampling, TokenIds
from services.inference.llamacpp_client import LlamaCppEngine
from services.inference.local.process import LocalEngine
from services.inference.local.weights import Weights, adapted, shipped_adapter
from services.strategy.folder import shipped
from services.training.setups import sentence, setup_of
from services.training.teacher import Facts

from .conftest import CLOCK
from .local import asking, weights

SHIPPED = shipped_adapter().parent
PROMPT = (Path(__file__).parent / "setup-prompt.txt").read_text(encoding="utf-8")
FACTS = Facts.of(PROMPT)
PATIENCE_MS = 300_000


def test_the_shipped_weights_are_those_of_their_checksums_and_small() -> None:
    lines = (SHIPPED / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    listed = {name: digest for digest, name in map(str.split, lines)}
    stored = [file for room in ("adapter", "draft") for file in (SHIPPED / room).iterdir()]
    assert listed == {str(file.relative_to(SHIPPED)): hashlib.sha256(file.read_bytes()).hexdigest() for file in stored}
    assert sum(file.stat().st_size for file in stored) < 24_000_000
    assert "Apache-2.0" in (SHIPPED / "README.md").read_text(encoding="utf-8")


@pytest.mark.integration
@pytest.mark.timeout(900)
async def test_with_the_shipped_adapter_the_local_engine_follows_setups_and_says_what_it_reads() -> None:
    tuned = adapted(weights(), shipped_adapter(), print)
    server = LocalEngine(tuned, symbols=1, ahead=False, context_tokens=2_048)
    await server.start()
    try:
        async with asking(server) as engine:
            for changes, action in (({}, "buy"), ({"macd_hist": "-1.37"}, "abstain"), ({"rsi": "73.4"}, "abstain")):
                await _assert_right(engine, tuned, changes, action)
    finally:
        await server.kill()


async def _assert_right(engine: LlamaCppEngine, tuned: Weights, changes: dict[str, str], action: str) -> None:
    """Assert that the greedy answer to the prompt with these facts is `action`, for the reason that the setups' sentence gives."""
    texts = FACTS.texts | changes
    user = PROMPT
    for name, text in changes.items():
        user = user.replace(f"{name}={FACTS.texts[name]}", f"{name}={text}")
    assert Facts.of(user).texts == texts
    ids = _encoded(tuned, user)
    reader = AnswerReader(thinking=False)
    request = EngineRequest(
        rid="a" * 32,
        affinity="IBM.XNYS",
        mode="fast",
        input_ids=ids,
        sampling=Sampling(88, regex=answer_regex(rationale=True)),
        deadline_ms=CLOCK.now_ms() + PATIENCE_MS,
        text=lambda: ("", ""),
        view={},
    )
    async for chunk in engine.stream(request):
        reader.feed(chunk.text)
    answer = reader.finish("stop")
    values = {name: float(text) for name, text in texts.items()}
    assert answer.action == action
    assert answer.rationale == sentence(setup_of(values), values, texts)


def _encoded(tuned: Weights, user: str) -> TokenIds:
    template = TEMPLATES[tuned.chat_template]
    encoder = Encoder(Tokenizer.from_file(tuned.tokenizer), template)
    pieces = [*template.head, rules(shipped(), "line"), *template.middle, *user.splitlines(keepends=True), *template.tail("fast")]
    return np.concatenate(encoder.encode_all(pieces))
