"""An adapter is read as peft means it, whatever its numbers are stored as; a damaged or mixed-up one is refused and never merged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.inference.local.adapter import AdapterError, lora_of
from services.inference.local.checksums import damaged_file, sha256_of, write_checksums
from services.inference.local.weights import LocalEngineError, adapted, adapted_in, shipped_adapter, weights_in

NAME = "base_model.model.model.layers.0.mlp.up_proj"
RANK = 2


def adapter(folder: Path, dtype: torch.dtype = torch.float16, **config: Any) -> Path:
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    tensors = {
        f"{NAME}.lora_A.weight": torch.randn(RANK, 6, generator=generator).to(dtype),
        f"{NAME}.lora_B.weight": torch.randn(8, RANK, generator=generator).to(dtype),
    }
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    configure(folder, peft_type="LORA", r=RANK, lora_alpha=4, bias="none", **config)
    return folder


def configure(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    before = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(before | changes))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, str(folder / "adapter_model.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_adapter_is_read_whatever_its_numbers_are_stored_as(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = load_file(adapter(tmp_path / "a", dtype) / "adapter_model.safetensors")
    (name, lora), *others = lora_of(tmp_path / "a").items()
    assert (name, others) == ("model.layers.0.mlp.up_proj.weight", [])
    expected = 2 * tensors[f"{NAME}.lora_B.weight"].float() @ tensors[f"{NAME}.lora_A.weight"].float()
    torch.testing.assert_close(torch.from_numpy(lora.change()), expected)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"r": 1}, r"change of rank 2, and adapter_config\.json says r = 1"),
        ({"r": 0}, "has r 0"),
        ({"r": "2"}, "has r '2'"),
        ({"r": None}, "has r None"),
        ({"lora_alpha": "x"}, "lora_alpha 'x'"),
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"use_dora": True}, "use_dora is True"),
        ({"rank_pattern": {"up_proj": 4}}, "rank_pattern is"),
        ({"alpha_pattern": {"up_proj": 4}}, "alpha_pattern is"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is"),
    ],
)
def test_settings_under_which_an_adapter_is_more_than_its_two_matrices(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    configure(adapter(tmp_path / "a"), **changes)
    with pytest.raises(AdapterError, match=named):
        lora_of(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda tensors: tensors.pop(f"{NAME}.lora_B.weight"), "no half of a LoRA pair"),
        (lambda tensors: tensors.update(extra=torch.ones(2, 2)), "extra, which is no half of a LoRA pair"),
        (lambda tensors: tensors[f"{NAME}.lora_A.weight"].fill_(float("nan")), "no matrix of finite numbers"),
        (lambda tensors: tensors[f"{NAME}.lora_A.weight"][0, 0].fill_(float("inf")), "no matrix of finite numbers"),
        (lambda tensors: tensors.update({f"{NAME}.lora_B.weight": torch.ones(8, 3)}), "change of rank 2"),
        (lambda tensors: tensors.update({f"{NAME}.lora_B.weight": torch.ones(16)}), "no matrix of finite numbers"),
        (lambda tensors: tensors.update({f"{NAME}.lora_B.weight": torch.ones(8, 2, dtype=torch.int8)}), "is stored as I8"),
        (dict.clear, "holds no LoRA weights"),
    ],
)
def test_weights_that_are_no_adapter_s(change: Callable[[dict[str, torch.Tensor]], object], named: str, tmp_path: Path) -> None:
    change_tensors(adapter(tmp_path / "a"), change)
    with pytest.raises(AdapterError, match=named):
        lora_of(tmp_path / "a")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapter_model.safetensors", b"no tensors"),
        ("adapter_model.safetensors", b""),
        ("adapter_config.json", b"{"),
        ("adapter_config.json", b"[1]"),
    ],
)
def test_files_that_are_no_adapter_s(file: str, content: bytes, tmp_path: Path) -> None:
    (adapter(tmp_path / "a") / file).write_bytes(content)
    with pytest.raises(AdapterError, match="aquiline model tune"):
        lora_of(tmp_path / "a")


@pytest.mark.parametrize("listed_in", ["beside", "above"])
def test_a_byte_that_differs_from_its_checksum_is_found_before_the_weights_are_added(listed_in: str, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    names = ("adapter_model.safetensors", "adapter_config.json")
    if listed_in == "beside":
        write_checksums(folder, names)
    else:
        write_checksums(tmp_path, [f"a/{name}" for name in names])
    assert damaged_file(folder) is None
    assert lora_of(folder)
    content = bytearray((folder / names[0]).read_bytes())
    content[-1] ^= 1
    (folder / names[0]).write_bytes(content)
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors differs from its checksum in SHA256SUMS"):
        lora_of(folder)
    said: list[str] = []
    with pytest.raises(LocalEngineError, match="differs from its checksum"):
        adapted(weights_in(tmp_path), folder, said.append)
    assert said == []


def test_checksums_of_other_folders_judge_nothing(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  b/adapter_model.safetensors\n{'0' * 64} *a/adapter_model.safetensors\nnothing\n")
    assert lora_of(folder)


def test_the_shipped_adapter_is_whole_and_a_damaged_copy_of_its_folder_is_refused(tmp_path: Path) -> None:
    assert len(lora_of(shipped_adapter())) == 30 * 7
    copy = shutil.copytree(shipped_adapter(), tmp_path / "copy")
    content = bytearray((copy / "adapter_model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(AdapterError, match="differs from its checksum"):
        lora_of(copy)


def test_adapted_weights_are_kept_by_all_that_the_adapter_holds(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    base = weights_in(tmp_path)
    before = adapted_in(base, folder)
    assert adapted_in(base, folder) == before
    configure(folder, lora_alpha=8)
    assert adapted_in(base, folder).gguf != before.gguf


def test_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "file") == digest
    write_checksums(tmp_path, ["file"])
    assert (tmp_path / "SHA256SUMS").read_text() == f"{digest}  file\n"
