"""A prompt as the model's own chat template and tokenizer make it, to compare ours with: Jinja as transformers renders it.

Ids that a model was not trained on show in nothing but worse answers, so that they are compared before any is sent.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import tokenizers
from numpy.typing import NDArray


class TemplateError(Exception):
    """There is no chat template to compare with; the text says why."""


def reference_ids(tokenizer_file: Path, text: str) -> NDArray[np.int32]:
    """Return the ids that the tokenizer gives for a rendered prompt, int32, shape (tokens,)."""
    tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_truncation()
    return np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int32)


def rendered(tokenizer_file: Path, messages: Sequence[Mapping[str, str]], *, thinking: bool) -> str:
    """Return the text that `apply_chat_template` makes of `messages`, up to the answer; raise TemplateError.

    The template is `chat_template.jinja` or that of `tokenizer_config.json`, beside `tokenizer_file`.
    """
    try:
        from jinja2 import TemplateError as JinjaError  # noqa: PLC0415 - an extra
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise TemplateError(f"comparing with the model's chat template needs Jinja ({error}): pip install 'aquiline[report]'") from error
    source, tokens = _template(tokenizer_file.parent)

    def refuse(message: str) -> NoReturn:
        raise JinjaError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: dt.datetime.now(dt.UTC).strftime(form)
    try:
        return environment.from_string(source).render(messages=messages, add_generation_prompt=True, enable_thinking=thinking, **tokens)
    except (JinjaError, TypeError) as error:
        raise TemplateError(f"the chat template beside {tokenizer_file} cannot be rendered: {error}") from error


def _template(folder: Path) -> tuple[str, dict[str, str]]:
    """Return the template's source and the special tokens that it may name."""
    file = folder / "tokenizer_config.json"
    config: dict[str, Any] = {}
    try:
        if file.is_file():
            config = json.loads(file.read_text(encoding="utf-8"))
        own = folder / "chat_template.jinja"
        source = own.read_text(encoding="utf-8") if own.is_file() else config.get("chat_template")
    except (OSError, ValueError) as error:
        raise TemplateError(f"the chat template in {folder} cannot be read: {error}") from error
    if isinstance(source, list):
        source = next((one.get("template") for one in source if one.get("name") == "default"), None)
    if not isinstance(source, str):
        raise TemplateError(f"{folder} has no chat template: neither chat_template.jinja nor one in tokenizer_config.json")
    named = {name: config.get(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    return source, {name: str(one["content"] if isinstance(one, dict) else one) for name, one in named.items() if one is not None}
