"""Presets: settings that suit a GPU, as data in `deploy/engine/*.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Positive = Annotated[int, Field(gt=0)]

# In a wheel the presets lie beside this module, in the repository where people look for them.
FOLDERS: Final = (Path(__file__).parent / "data", Path(__file__).parents[3] / "deploy" / "engine")


class LaunchError(Exception):
    """The engine cannot be started or used as asked; the text is a sentence for the person who asked."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EnginePart(_Part):
    """SGLang's settings, those that matter for long prompts that are mostly cached."""

    attention_backend: Literal["flashinfer", "fa3", "trtllm_mha", "triton"] = "flashinfer"
    context_tokens: Positive
    """Longest prompt with its answer."""
    mem_fraction: Annotated[float, Field(gt=0, lt=1)]
    """Share of the GPU's memory for weights, draft and KV cache; the rest is for activations and graphs."""
    chunked_prefill_tokens: Positive = 8_192
    max_running_requests: Positive = 8
    """Calls decoded at once; also the largest batch that CUDA graphs are captured for."""
    schedule_policy: Literal["fcfs", "lof", "lpm"] = "fcfs"
    kv_cache_dtype: Literal["auto", "fp8_e5m2", "fp8_e4m3"] = "auto"
    quantization: Literal["fp8", "gptq_marlin", "awq_marlin"] | None = None
    """`fp8` halves bfloat16 weights while loading; the Marlin kernels serve a checkpoint that is stored as GPTQ or AWQ in 4 bits."""


class SpeculationPart(_Part):
    """EAGLE3's settings, always said explicitly: SGLang's own choice can be a tree of 5/4/8."""

    steps: Positive = 3
    topk: Positive = 1
    draft_tokens: Positive = 4
    draft_window: Positive | None = None
    """Tokens that the draft looks back; everything when absent. Acceptance falls past the draft's training length without it."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.topk == 1 and self.draft_tokens != self.steps + 1:
            raise ValueError(
                f"with topk 1 the draft is a chain of steps + 1 tokens: draft_tokens must be {self.steps + 1}, not {self.draft_tokens}"
            )
        return self


class Preset(_Part):
    """The settings for one kind of GPU."""

    name: str = ""
    title: str
    note: str | None = None
    card_gib: Annotated[float, Field(gt=0)]
    """Memory of the GPU, for the estimate on a machine without one."""
    engine: EnginePart
    speculation: SpeculationPart = SpeculationPart()
    arguments: list[str] = []
    """Further arguments for SGLang, as they are."""


def names() -> list[str]:
    """Return the shipped presets' names."""
    return sorted({file.stem for folder in FOLDERS for file in folder.glob("*.toml")})


def load(name: str) -> Preset:
    """Return the preset of that name, or the one in the TOML file of that path; raise LaunchError."""
    candidates = [Path(name)] if name.endswith(".toml") else [folder / f"{name}.toml" for folder in FOLDERS]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise LaunchError(f"there is no preset {name!r}; choose one of {', '.join(names())}, or give the path of a TOML file")
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LaunchError(f"preset {str(file)!r} cannot be read: {error}") from error
    if "instead" in values:
        raise LaunchError(f"preset {name!r} starts no SGLang: {values['instead']}")
    try:
        return Preset.model_validate(values | {"name": file.stem})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False))
        raise LaunchError(f"preset {str(file)!r} cannot be used: {problems}") from error


def write(preset: Preset, file: Path) -> None:
    """Write `preset` as TOML, in the form that `load` reads."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in preset.model_dump(exclude_none=True, exclude={"name"}).items():
        if isinstance(value, dict):
            tables += [f"\n[{key}]", *(f"{name} = {_toml(inner)}" for name, inner in value.items())]
        else:
            lines.append(f"{key} = {_toml(value)}")
    file.write_text("\n".join(lines + tables) + "\n", encoding="utf-8")


def _toml(value: object) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value)
