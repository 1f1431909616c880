"""Write the model folders of the GPU runs: MiniCPM4.1-8B's shape and its EAGLE3 draft's, without weights.

The servers fill them with random values (`--load-format dummy`), so speed is real and text is noise.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from services.inference.minicpm_configuration import CONFIGURATION

VOCABULARY = 73_448
IM_END = 73_440
TARGET = {
    "architectures": ["MiniCPMForCausalLM"],
    "model_type": "minicpm",
    "auto_map": {"AutoConfig": "configuration_minicpm.MiniCPMConfig"},
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "intermediate_size": 16_384,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 65_536,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "scale_emb": 12,
    "scale_depth": 1.4,
    "dim_model_base": 256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
DRAFT = {
    "architectures": ["LlamaForCausalLMEagle3"],
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 1,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "intermediate_size": 16_384,
    "vocab_size": VOCABULARY,
    "draft_vocab_size": 32_000,
    "max_position_embeddings": 65_536,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
SPECIAL = {0: "<unk>", 1: "<s>", 2: "</s>", IM_END: "<|im_end|>", IM_END + 1: "<|im_start|>"}


def write_tokenizer(folder: Path, shipped: Path) -> tuple[int, list[int]]:
    """Write a tokenizer of exactly `VOCABULARY` entries, the shipped one padded, else bytes and made-up entries.

    Returns the ids of its start token and of the tokens that end an answer, which the model's config must name.
    """
    if shipped.is_file():
        source = json.loads(shipped.read_text(encoding="utf-8"))
        vocabulary: dict[str, int] = dict(source["model"]["vocab"])
        vocabulary.update({token["content"]: token["id"] for token in source.get("added_tokens", [])})
        if len(vocabulary) > VOCABULARY or max(vocabulary.values()) >= VOCABULARY:
            raise SystemExit(f"{shipped} has ids up to {max(vocabulary.values())}, above the model's {VOCABULARY}")
    else:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {text: token for token, text in SPECIAL.items() if token < IM_END}
        vocabulary.update({letter: 3 + index for index, letter in enumerate(alphabet)})
        # Runs of three letters stand in for words, so that random ids decode to some text.
        letters = [letter for letter in alphabet if letter.isascii() and letter.isalpha()]
        free = iter(a + b + c for a in letters for b in letters for c in letters)
        for token in range(3 + len(alphabet), 3 + len(alphabet) + 40_000):
            vocabulary[next(free)] = token
    taken = set(vocabulary.values())
    for token, text in SPECIAL.items():
        if token not in taken and text not in vocabulary:
            vocabulary[text] = token
            taken.add(token)
    for token in range(VOCABULARY):
        if token not in taken:
            vocabulary[f"<unused_{token}>"] = token
    if shipped.is_file():
        known = set(source["model"]["vocab"]) | {token["content"] for token in source.get("added_tokens", [])}
        source["model"]["vocab"].update({text: token for text, token in vocabulary.items() if text not in known})
        (folder / "tokenizer.json").write_text(json.dumps(source, ensure_ascii=False), encoding="utf-8")
        Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))  # noqa: S106 - no password
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([text for text in SPECIAL.values() if text in vocabulary])
        tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "model_max_length": 65_536,
                "clean_up_tokenization_spaces": False,
            }
        ),
        encoding="utf-8",
    )
    return vocabulary["<s>"], [vocabulary["</s>"], vocabulary["<|im_end|>"]]


def longrope() -> dict[str, object]:
    """Return LongRoPE factors in the shape that MiniCPM4.1 has them: 64 that grow, the same for short and long batches.

    The values are made up: with random weights they cost what the model's own do and mean nothing.
    """
    factors = [round(1.0 + 119.0 * (index / 63) ** 3, 6) for index in range(64)]
    return {"rope_type": "longrope", "short_factor": factors, "long_factor": factors, "original_max_position_embeddings": 65_536}


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True, "lm_head": False}


def main() -> None:
    """Write both folders afresh."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--draft", type=Path, required=True)
    parser.add_argument("--longrope", action="store_true", help="give the target LongRoPE factors")
    parser.add_argument("--gptq", action="store_true", help="say that the target's weights are stored as GPTQ in 4 bits")
    arguments = parser.parse_args()
    for folder in (arguments.model, arguments.draft):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    repository = Path(__file__).resolve().parents[2]
    start, ends = write_tokenizer(arguments.model, repository / "services" / "inference" / "data" / "tokenizer.json")
    target: dict[str, object] = dict(TARGET)
    if arguments.longrope:
        target["rope_scaling"] = longrope()
    if arguments.gptq:
        target["quantization_config"] = GPTQ
    for folder, config in ((arguments.model, target), (arguments.draft, DRAFT)):
        named = config | {"bos_token_id": start, "eos_token_id": ends}
        (folder / "config.json").write_text(json.dumps(named, indent=1), encoding="utf-8")
    (arguments.model / "configuration_minicpm.py").write_text(CONFIGURATION, encoding="utf-8")


if __name__ == "__main__":
    main()
