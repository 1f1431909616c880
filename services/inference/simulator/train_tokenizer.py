"""Trains the simulator's tokenizer, a small byte-level BPE, on a text file; the same text gives the same file.

`python -m services.inference.simulator.train_tokenizer --help` says how.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import tokenizers

SPECIAL: Final = ("<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")


def train(text: str, vocab_size: int) -> tokenizers.Tokenizer:
    """Return a byte-level BPE of at most `vocab_size` tokens trained on the lines of `text`; digits stay single."""
    split = [
        tokenizers.pre_tokenizers.Digits(individual_digits=True),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(split)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


def main(argv: list[str] | None = None) -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(prog="python -m services.inference.simulator.train_tokenizer", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="text file to train on: rendered prompts and answers")
    parser.add_argument("--out", type=Path, required=True, help="where to write the tokenizer.json")
    parser.add_argument("--vocab-size", type=int, default=4096, help="tokens at most, special ones included (default: 4096)")
    options = parser.parse_args(argv)
    train(options.corpus.read_text(encoding="utf-8"), options.vocab_size).save(str(options.out))


if __name__ == "__main__":
    main()
