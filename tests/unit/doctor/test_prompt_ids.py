"""Whole prompts have the ids that the model's own chat template and tokenizer give, as transformers applies them."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import transformers

from services.core.chat_template import TemplateError, reference_ids, rendered
from services.core.clock import SystemClock
from services.core.fusion_settings import FusionSettings
from services.core.settings import EngineSettings, Settings
from services.core.tokenizer import Tokenizer
from services.doctor.diagnosis import Diagnosis
from services.doctor.longest_prompt import _built, _thought_difference, id_difference
from services.fusion.prompt.builder import PromptBuilder
from services.fusion.prompt.chat import TEMPLATES
from services.fusion.prompt.store import PrefixStore

# MiniCPM4.1's, as far as it concerns prompts without tools.
THINKING_TEMPLATE = """\
{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"""
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
FUSION = FusionSettings(intervals=["5m"], window_bars=40, epoch_slots=8)
CORPUS = [
    "user\n",
    "system\n",
    "assistant\n",
    "You decide on one instrument. Answer with JSON.\n",
    "0104    101.25 +0012 +0043 -0020 12e6 55\n",
    "close=101.5 atr=2 rsi=61\n",
] * 20


def _legacy() -> tokenizers.Tokenizer:
    """Return a tokenizer that puts a space before every text, also before one that follows a special token."""
    hf = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    hf.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")])
    replaced = [tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    hf.decoder = tokenizers.decoders.Sequence(replaced)
    return hf


def _first_only() -> tokenizers.Tokenizer:
    """Return a tokenizer that puts a space before a prompt's first text alone."""
    hf = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", byte_fallback=True))
    hf.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    hf.decoder = tokenizers.decoders.Metaspace(prepend_scheme="first")
    return hf


def byte_level_tokenizer() -> tokenizers.Tokenizer:
    hf = tokenizers.Tokenizer(tokenizers.models.BPE())
    hf.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf.decoder = tokenizers.decoders.ByteLevel()
    return hf


def model_folder(folder: Path, hf: tokenizers.Tokenizer, template: str = THINKING_TEMPLATE) -> Path:
    """Write a trained tokenizer's files as a model ships them, `<think>` added and not special; return its tokenizer.json."""
    fallback = [f"<0x{byte:02X}>" for byte in range(256)] if "byte_fallback" in hf.to_str() else []
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet() if hf.normalizer is None else []
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*SPECIAL, *fallback], initial_alphabet=sorted(alphabet), show_progress=False
    )
    hf.train_from_iterator(CORPUS, trainer)
    definition = json.loads(hf.to_str())
    definition["added_tokens"] = [one for one in definition["added_tokens"] if one["content"] in SPECIAL]
    made = tokenizers.Tokenizer.from_str(json.dumps(definition))
    made.add_tokens([tokenizers.AddedToken(word, special=False, normalized=False) for word in ("<think>", "</think>")])
    file = folder / "tokenizer.json"
    made.save(str(file))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": {"content": "<|im_end|>"},
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return file


def settings(file: Path, template: str = "minicpm4") -> Settings:
    return Settings(engine=EngineSettings.model_validate({"tokenizer_file": file, "chat_template": template}), fusion=FUSION)


@pytest.mark.parametrize("kind", [_legacy, _first_only, byte_level_tokenizer])
async def test_a_whole_prompt_has_the_ids_that_transformers_gives(tmp_path: Path, kind: Callable[[], tokenizers.Tokenizer]) -> None:
    file = model_folder(tmp_path, kind())
    tokenizer = Tokenizer.from_file(file)
    theirs = transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_file=str(file), bos_token="<s>", eos_token="<|im_end|>", chat_template=THINKING_TEMPLATE
    )
    prompt, (system, user) = await _built(settings(file), tokenizer, "fast")
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False, return_dict=False)
    assert prompt.ids.tolist() == list(expected)
    assert tokenizer.special_id("<think>") in expected
    np.testing.assert_array_equal(reference_ids(file, rendered(file, messages, thinking=False)), expected)
    assert await id_difference(settings(file), tokenizer, file) is None


@pytest.mark.parametrize("kind", [_legacy, _first_only, byte_level_tokenizer])
async def test_a_thought_is_closed_with_the_ids_that_the_tokenizer_gives_after_it(
    tmp_path: Path, kind: Callable[[], tokenizers.Tokenizer]
) -> None:
    file = model_folder(tmp_path, kind())
    tokenizer = Tokenizer.from_file(file)
    engine = settings(file).engine
    store = PrefixStore(None, settings(file).redis, SystemClock(), "test")
    builder = PromptBuilder(FUSION, tokenizer, engine.chat_template, store, 1 << 20)
    deep = (await _built(settings(file), tokenizer, "deep"))[0].ids
    ids, tokens = builder.after_thought(deep, "close is 101.\n")
    end = ids[deep.size + tokens :]
    theirs = tokenizers.Tokenizer.from_file(str(file)).encode("close is 101.\n</think>\n\n", add_special_tokens=False).ids
    assert end[0] == tokenizer.special_id("</think>")
    assert theirs[-end.size :] == end.tolist()


async def test_a_prompt_without_the_space_after_a_special_token_is_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = model_folder(tmp_path, _legacy())
    monkeypatch.setattr(Tokenizer, "encode_after", lambda self, _, text: self.encode(text))
    difference = await id_difference(settings(file), Tokenizer.from_file(file), file)
    assert difference is not None
    assert difference.startswith("token 2 of a prompt in mode fast is")


async def test_another_models_template_is_a_difference(tmp_path: Path) -> None:
    file = model_folder(tmp_path, byte_level_tokenizer(), THINKING_TEMPLATE.removeprefix("{{ bos_token }}"))
    tokenizer = Tokenizer.from_file(file)
    assert await id_difference(settings(file), tokenizer, file) is not None


DEEP = FusionSettings(intervals=["5m"], window_bars=40, epoch_slots=8, deep_every_bars=4)
OPENS = THINKING_TEMPLATE.replace(
    "{% if enable_thinking is defined and enable_thinking is false %}", "{% if enable_thinking is false %}"
).replace("{% endif %}{% endif %}", "{% else %}{{ '<think>\\n' }}{% endif %}{% endif %}")


@pytest.mark.parametrize(
    ("template", "difference"),
    [
        (THINKING_TEMPLATE, None),
        (OPENS, None),
        (THINKING_TEMPLATE.replace("<think>", "<reason>").replace("</think>", "</reason>"), "token"),
        (THINKING_TEMPLATE.replace("</think>", "</thought>"), "token"),
        (OPENS.replace("{{ '<think>\\n' }}", "{{ '<thought>\\n' }}"), "of a prompt in mode deep is"),
        (THINKING_TEMPLATE.partition("{% if enable_thinking")[0] + "{% endif %}", "token"),
    ],
)
async def test_how_a_thought_is_opened_and_left_out_is_compared_with_the_models_own_template(
    tmp_path: Path, template: str, difference: str | None
) -> None:
    file = model_folder(tmp_path, byte_level_tokenizer(), template)
    with_deep = settings(file).model_copy(update={"fusion": DEEP})
    found = await id_difference(with_deep, Tokenizer.from_file(file), file)
    assert (found is None) == (difference is None)
    assert difference is None or difference in (found or "")


@pytest.mark.parametrize(
    ("opening", "thinking", "not_thinking", "said"),
    [
        ("<think>\n", "A:\n", "A:\n<think>\n\n</think>\n\n", None),
        ("", "A:\n<think>\n", "A:\n<think>\n\n</think>\n\n", None),
        ("", "A:\n<think>\n", "A:\n", None),
        ("<think>\n", "A:\n", "A:\n", "has none to switch on or off"),
        ("<think>\n", "A:\n", "A:\n<reason></reason>", "writes an empty one as '<reason></reason>'"),
        ("<think>\n", "A:\n", "A:\n<think>\n\n</reason>", "ends an empty one otherwise: '<think>\\n\\n</reason>'"),
    ],
)
def test_a_thought_that_the_model_writes_otherwise_is_a_difference(
    opening: str, thinking: str, not_thinking: str, said: str | None
) -> None:
    found = _thought_difference(opening, thinking, not_thinking)
    assert (found is None) == (said is None)
    assert said is None or said in (found or "")


async def test_a_chat_template_without_thoughts_has_none_in_mode_deep(tmp_path: Path) -> None:
    chatml = THINKING_TEMPLATE.partition("{% if enable_thinking")[0].removeprefix("{{ bos_token }}") + "{% endif %}"
    file = model_folder(tmp_path, byte_level_tokenizer(), chatml)
    tokenizer, plain = Tokenizer.from_file(file), settings(file, "chatml")
    assert await id_difference(plain, tokenizer, file) is None
    found = await id_difference(plain.model_copy(update={"fusion": DEEP}), tokenizer, file)
    assert found is not None
    assert found.startswith("mode deep asks for a thought, and the model's own chat template has none")


async def test_a_chat_template_without_a_system_role_is_a_difference_and_no_missing_template(tmp_path: Path) -> None:
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + THINKING_TEMPLATE
    file = model_folder(tmp_path, byte_level_tokenizer(), refuses)
    found = await id_difference(settings(file), Tokenizer.from_file(file), file)
    assert found is not None
    assert "which the model's own chat template does not take" in found
    assert "System role not supported" in found


@pytest.mark.parametrize(("kind", "level"), [("sglang", "fail"), ("vllm", "fail"), ("openai", "skipped")])
async def test_ids_are_compared_for_engines_that_are_sent_ids(tmp_path: Path, kind: str, level: str) -> None:
    """A chat server applies its own template to text: what it makes of it is not the doctor's to refuse."""
    file = model_folder(tmp_path, byte_level_tokenizer(), THINKING_TEMPLATE.removeprefix("{{ bos_token }}"))
    engine = EngineSettings.model_validate({"kind": kind, "tokenizer_file": file})
    fits, ids = await Diagnosis(Settings(engine=engine, fusion=FUSION), probe=False)._tokenizer()
    assert (fits.level, ids.check, ids.level) == ("ok", "prompt ids", level)


async def test_without_a_template_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    file = model_folder(tmp_path, byte_level_tokenizer())
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(TemplateError, match="has no chat template"):
        await id_difference(settings(file), Tokenizer.from_file(file), file)
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    with pytest.raises(TemplateError, match="no system role"):
        await id_difference(settings(file), Tokenizer.from_file(file), file)


def test_no_template_has_text_apart_from_the_special_token_that_it_follows() -> None:
    for template in TEMPLATES.values():
        for pieces in (template.head, template.middle, template.fast_tail, template.deep_tail, template.next_user):
            assert not any(isinstance(one, str) and isinstance(other, str) for one, other in pairwise(pieces))
