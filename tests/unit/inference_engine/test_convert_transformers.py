"""The converted model gives the logits of the original in transformers' own Llama."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from services.inference import convert
from tests.unit.inference_engine.minicpm import PlainMiniCPM
from tests.unit.inference_engine.test_convert import write_model


def test_transformers_llama_gives_the_same_logits(tmp_path: Path) -> None:
    model = PlainMiniCPM.random(11)
    write_model(model, tmp_path / "minicpm", shards=3)
    convert.convert(tmp_path / "minicpm", tmp_path / "llama")
    llama = AutoModelForCausalLM.from_pretrained(tmp_path / "llama", dtype=torch.float32)
    assert type(llama).__name__ == "LlamaForCausalLM"
    ids = torch.arange(23) * 5 % 97
    with torch.no_grad():
        torch.testing.assert_close(llama(ids[None]).logits[0], model.logits(ids), rtol=1e-4, atol=1e-4)
