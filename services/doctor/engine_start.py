"""What `aquiline engine serve` takes from the workers' settings: prefixes to warm up with, and whether prompts' ids are the model's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from services.core import redis, settings
from services.core.chat_template import TemplateError
from services.core.clock import SystemClock
from services.core.tokenizer import Tokenizer
from services.doctor.longest_prompt import id_difference
from services.fusion.prompt.builder import fingerprint
from services.fusion.prompt.store import PrefixStore
from services.inference.engine import TokenIds
from services.inference.sglang_client import SGLangEngine

_MOST_PREFIXES: Final = 10_000


async def prefixes_in_use(url: str, tokenizer_file: Path) -> list[TokenIds]:
    """Return the prefixes that workers last used on the engine that they know as `url`, the latest first; none without Redis.

    The workers' settings name the tokenizer, the chat template and the Redis that the prefixes are stored under.
    """
    loaded = settings.load()
    client = redis.connect(loaded.redis)
    if client is None:
        return []
    clock = SystemClock()
    tokenizer = Tokenizer.from_file(loaded.engine.tokenizer_file or tokenizer_file)
    store = PrefixStore(client, loaded.redis, clock, fingerprint(tokenizer, loaded.engine.chat_template, loaded.fusion.strategy))
    try:
        return await store.hottest(SGLangEngine(url, clock).name, _MOST_PREFIXES)
    finally:
        await store.close()


async def id_difference_of(tokenizer_file: Path, say: Callable[[str], None]) -> str | None:
    """Return how prompts' ids differ from the model's own, None where they do not or the model brings nothing to compare with."""
    try:
        tokenizer = Tokenizer.from_file(tokenizer_file)
    except ValueError as error:
        say(f"note: prompt ids are not compared with the model's own: {error}")
        return None
    try:
        return await id_difference(settings.load(), tokenizer, tokenizer_file)
    except TemplateError as error:
        say(f"note: prompt ids are not compared with the model's own: {error}")
        return None
    except (ValueError, settings.SettingsError) as error:
        return str(error)
