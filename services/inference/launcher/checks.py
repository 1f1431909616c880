"""What is checked before the engine starts: each finding is a sentence that says what is wrong and what to do.

All of these end, unchecked, in a crash after a minute of loading or, worse, in an engine that answers and accepts no drafts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from services.inference.launcher.folders import ModelFolder
from services.inference.launcher.presets import Preset

GIB = 1024**3
_EAGLE3_BACKENDS = ("flashinfer", "fa3", "trtllm_mha")
_DRAFT_ARCHITECTURE = "LlamaForCausalLMEagle3"
_SLOW = "makes EAGLE3 slower than no speculation at all (34 against 65 tokens/s at 32K tokens on an H100)"
_MARLIN = {"gptq_marlin": "gptq", "awq_marlin": "awq"}
_TARGETS = ("MiniCPMForCausalLM", "LlamaForCausalLM")
_OWNED = {
    "--model-path": "--model-path", "--speculative-draft-model-path": "--draft-path",
    "--context-length": "--context", "--port": "--port", "--host": "--host",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Memory:
    """How the GPU's memory is divided, in bytes, and the room for the KV cache, in tokens."""

    gpu: int
    weights: int
    draft: int
    kv_a_token: int
    kv_tokens: int
    wanted_tokens: int

    def sentence(self) -> str:
        """Return the estimate in words."""
        return (
            f"{self.gpu / GIB:.1f} GiB GPU: {self.weights / GIB:.1f} GiB weights, {self.draft / GIB:.1f} GiB draft, room for "
            f"{max(self.kv_tokens, 0):,} tokens of KV cache at {self.kv_a_token / 1024:.0f} KiB each; {self.wanted_tokens:,} are wanted"
        )


def memory(preset: Preset, target: ModelFolder, draft: ModelFolder | None, *, gpu_bytes: int, context: int, permits: int) -> Memory:
    """Estimate the memory: `permits` calls of `context` tokens each must fit in the KV cache at once.

    `mem_fraction` of the GPU's memory holds weights, draft and KV cache; SGLang keeps the rest for activations and graphs.
    """
    engine = preset.engine
    element = 2 if engine.kv_cache_dtype == "auto" else 1
    weights = target.bytes_on_card // (2 if engine.quantization == "fp8" and target.quantization is None else 1)
    drafted = draft.bytes_on_card if draft else 0
    kv = target.kv_bytes_a_token(element) + (draft.kv_bytes_a_token(element) if draft else 0)
    free = int(gpu_bytes * engine.mem_fraction) - weights - drafted
    return Memory(gpu_bytes, weights, drafted, kv, free // kv, context * permits)


def findings(
    preset: Preset,
    target: ModelFolder,
    draft: ModelFolder | None,
    *,
    gpu_bytes: int,
    context: int,
    permits: int,
    extra: Sequence[str] = (),
) -> list[str]:
    """Return what is wrong, in sentences; empty when the engine can start. `draft` None serves without speculation."""
    dummy = _options([*preset.arguments, *extra]).get("--load-format") == "dummy"
    sentences = _of_target(target, context) + _of_quantization(preset, target) + _of_kv_cache(preset)
    if draft is not None:
        sentences += _of_draft(target, draft, context) + _of_speculation(preset)
    if not dummy:
        sentences += [
            f"{folder.path}: there are no weight files (*.safetensors); is the download complete?"
            for folder in (target, draft)
            if folder is not None and folder.weight_bytes == 0
        ]
    sentences += _of_arguments([*preset.arguments, *extra], preset, draft)
    estimate = memory(preset, target, draft, gpu_bytes=gpu_bytes, context=context, permits=permits)
    if estimate.kv_tokens < estimate.wanted_tokens:
        fits = max(estimate.kv_tokens // permits // 1_024 * 1_024, 0)
        advice = (
            f"give --context {fits}, fewer --permits, or a preset with kv_cache_dtype or quantization fp8"
            if fits
            else "the weights leave no room: take a larger GPU, or quantization fp8 in the preset"
        )
        sentences.append(f"{permits} calls of {context:,} tokens do not fit ({estimate.sentence()}): {advice}")
    return sentences


def notes(target: ModelFolder, draft: ModelFolder | None) -> list[str]:
    """Return what is worth knowing and stops nothing, in sentences."""
    if target.is_hybrid:
        linear = f"{target.layers - target.kv_layers} of {target.layers} layers attend linearly ({target.architecture})"
        costs = "without speculation and, in SGLang (0.5.19 or later), without a prefix cache: every decision reads its whole prompt anew"
        return [f"{target.path}: {linear}: it is served {costs}"]
    if draft is not None and (draft.rope_scaling or None) != (target.rope_scaling or None):
        sentence = (
            "the draft's rope_scaling is not the target's; drafts are trained either way, so compare the accepted tokens a step "
            "at your prompts' length with those of short prompts (aquiline engine tune --lengths)"
        )
        return [sentence]
    return []


def _of_target(target: ModelFolder, context: int) -> list[str]:
    sentences = []
    if not target.has_tokenizer:
        sentences.append(f"{target.path}: there is neither tokenizer.json nor tokenizer.model; is the download complete?")
    if context > target.max_position_embeddings:
        sentences.append(
            f"a context of {context:,} tokens is past the model's rope table of {target.max_position_embeddings:,}: "
            f"give --context {target.max_position_embeddings} or less, or --longrope for a model whose config.json names LongRoPE factors"
        )
    return sentences


def _of_quantization(preset: Preset, target: ModelFolder) -> list[str]:
    wanted, stored = preset.engine.quantization, target.quantization
    if wanted == "fp8" and stored not in {None, "fp8"}:
        problem = f"{target.path}: the weights are stored as {stored!r}, which the preset's quantization 'fp8' cannot quantize again"
        return [f"{problem}: serve them with a preset without quantization, or take the bfloat16 checkpoint"]
    if wanted in _MARLIN and stored != _MARLIN[wanted]:
        method = _MARLIN[wanted]
        problem = (
            f"the preset's quantization {wanted!r} serves a checkpoint stored as {method!r}, and this one is {stored or 'not quantized'}"
        )
        return [f"{target.path}: {problem}: download the {method.upper()} checkpoint, or take a preset without it"]
    return []


def _of_kv_cache(preset: Preset) -> list[str]:
    engine = preset.engine
    if engine.attention_backend == "fa3" and engine.kv_cache_dtype == "fp8_e5m2":
        return ["kv_cache_dtype 'fp8_e5m2' with attention backend 'fa3' silently becomes 'triton' in SGLang 0.5.17: use 'fp8_e4m3'"]
    return []


def _of_draft(target: ModelFolder, draft: ModelFolder, context: int) -> list[str]:
    sentences = []
    if target.architecture not in _TARGETS:
        sentences.append(
            f"{target.path}: architecture {target.architecture!r} was not tried with EAGLE3 here (expected {' or '.join(_TARGETS)}): "
            "serve it with --no-speculation"
        )
    if draft.architecture != _DRAFT_ARCHITECTURE:
        sentences.append(f"{draft.path}: architecture {draft.architecture!r} is no EAGLE3 draft; expected {_DRAFT_ARCHITECTURE!r}")
    reads = draft.target_hidden_size or draft.hidden_size
    if reads != target.hidden_size:
        sentences.append(
            f"{draft.path}: the draft reads hidden states of {reads}, but the target's are {target.hidden_size}: it is another model's"
        )
    if draft.vocab_size != target.vocab_size:
        sentences.append(
            f"{draft.path}: the draft's vocabulary of {draft.vocab_size:,} is not the target's of {target.vocab_size:,}: "
            "it is another model's draft"
        )
    if draft.draft_vocab_size is None:
        sentences.append(
            f"{draft.path}: config.json has no draft_vocab_size, which SGLang needs: add the number of rows of the draft's lm_head "
            "(32000 for MiniCPM4.1-8B)"
        )
    if draft.max_position_embeddings < min(context, target.max_position_embeddings):
        sentences.append(
            f"{draft.path}: the draft's max_position_embeddings of {draft.max_position_embeddings:,} is below --context {context:,}, "
            "so that its rope table ends too early: raise it in the draft's config.json"
        )
    if draft.rope_theta != target.rope_theta:
        sentences.append(
            f"{draft.path}: the draft turns positions with rope_theta {draft.rope_theta:,.0f} and the target with "
            f"{target.rope_theta:,.0f}: it was trained on another model's states"
        )
    return sentences


def _of_speculation(preset: Preset) -> list[str]:
    backend = preset.engine.attention_backend
    if backend not in _EAGLE3_BACKENDS:
        known = ", ".join(_EAGLE3_BACKENDS)
        return [f"attention backend {backend!r} {_SLOW}: use one of {known}"]
    if preset.speculation.draft_window is not None and backend == "flashinfer":
        # SGLang 0.5.17 on an H100: an assertion in flashinfer's multi-step draft backend; with triton for the draft, a kernel that
        # does not compile. fa3 was not tried.
        window = preset.speculation.draft_window
        problem = f"draft_window {window} with attention backend 'flashinfer' ends stock SGLang 0.5.17 at its start"
        return [f"{problem}: leave it out, or try attention_backend 'fa3'"]
    if backend == "trtllm_mha" and preset.speculation.topk > 1:
        return [f"attention backend 'trtllm_mha' takes a chain only: topk must be 1, not {preset.speculation.topk}"]
    return []


def _of_arguments(arguments: Sequence[str], preset: Preset, draft: ModelFolder | None) -> list[str]:
    options = _options(arguments)
    sentences = [f"{name} is set by the launcher: say {own} instead" for name, own in _OWNED.items() if name in options]
    if draft is None:
        return sentences
    algorithm = options.get("--speculative-algorithm", "EAGLE3")
    if algorithm.upper() != "EAGLE3":
        sentences.append(
            f"--speculative-algorithm {algorithm} with an EAGLE3 draft answers but accepts no draft token (acceptance 1.00): leave it out"
        )
    page = options.get("--page-size", "1")
    if page != "1" and preset.speculation.topk == 1:
        sentences.append(f"an explicit --page-size {page} with topk 1 silently changes the attention backend: leave it out")
    backends = ("--attention-backend", "--decode-attention-backend", "--speculative-draft-attention-backend")
    sentences += [f"{name} triton {_SLOW}: use flashinfer or fa3, in the preset" for name in backends if options.get(name) == "triton"]
    return sentences


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """Return options with their values; `--name=value` and `--name value` both, an empty value for switches."""
    options: dict[str, str] = {}
    for argument, following in pairwise([*arguments, ""]):
        if argument.startswith("--"):
            name, _, value = argument.partition("=")
            options[name] = value or ("" if following.startswith("--") else following)
    return options
