"""The command and the environment that start SGLang."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.inference.launcher.folders import ModelFolder
from services.inference.launcher.presets import Preset

PLUGIN = "services.inference.sglang_plugin"


@dataclass(frozen=True, slots=True)
class Launch:
    """What is run: `arguments` with `environment` on top of this process's own."""

    arguments: list[str]
    environment: dict[str, str]
    url: str


def launch(
    preset: Preset,
    *,
    model_path: Path,
    draft_path: Path | None,
    target: ModelFolder | None,
    context: int,
    host: str,
    port: int,
    extra: Sequence[str] = (),
    python: str = sys.executable,
) -> Launch:
    """Return how to start the engine. `target` None (nothing read yet) is taken for a MiniCPM; `draft_path` None serves without EAGLE3."""
    engine, speculation = preset.engine, preset.speculation
    arguments = [
        python, "-m", "sglang.launch_server",
        "--model-path", str(model_path),
        "--host", host,
        "--port", str(port),
        "--dtype", "bfloat16",
        "--context-length", str(context),
        "--mem-fraction-static", str(engine.mem_fraction),
        "--max-running-requests", str(engine.max_running_requests),
        "--cuda-graph-max-bs-decode", str(engine.max_running_requests),
        "--chunked-prefill-size", str(engine.chunked_prefill_tokens),
        "--schedule-policy", engine.schedule_policy,
        # A weak model under a JSON grammar prints white space for ever without this.
        "--constrained-json-disable-any-whitespace",
        "--enable-metrics",
        "--log-level-http", "warning",
    ]  # fmt: skip
    hybrid = target is not None and target.is_hybrid
    if not hybrid:  # SGLang has a backend of its own for those
        arguments += ["--attention-backend", engine.attention_backend]
    environment = {
        # /health would generate a token, and take a second, every time that it is asked.
        "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
    }
    if engine.kv_cache_dtype != "auto":
        arguments += ["--kv-cache-dtype", engine.kv_cache_dtype]
    if engine.quantization:
        arguments += ["--quantization", engine.quantization]
    if target is None or (target.scale_emb is not None and not hybrid):
        arguments.append("--trust-remote-code")  # MiniCPM's config is a class of its own folder
        environment["SGLANG_EXTERNAL_MODEL_PACKAGE"] = PLUGIN
    if draft_path is not None:
        arguments += [
            "--speculative-algorithm", "EAGLE3",
            "--speculative-draft-model-path", str(draft_path),
            "--speculative-num-steps", str(speculation.steps),
            "--speculative-eagle-topk", str(speculation.topk),
            "--speculative-num-draft-tokens", str(speculation.draft_tokens),
        ]  # fmt: skip
        if engine.quantization in {"gptq_marlin", "awq_marlin"}:
            # SGLang would look for the target's packed weights in the draft, which is stored in bfloat16.
            arguments += ["--speculative-draft-model-quantization", "unquant"]
        if speculation.draft_window is not None:
            arguments += ["--speculative-draft-window-size", str(speculation.draft_window)]
    asked = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - compared, not bound
    return Launch([*arguments, *preset.arguments, *extra], environment, f"http://{asked}:{port}")


def shell(launch_: Launch, own: Mapping[str, str] | None = None) -> str:
    """Return the command as a person would type it, one option a line."""
    import shlex  # noqa: PLC0415 - only for people

    lines: list[str] = [f"{name}={shlex.quote(value)}" for name, value in {**(own or {}), **launch_.environment}.items()]
    words = launch_.arguments
    lines.append(shlex.join(words[:3]))
    for word in words[3:]:
        if word.startswith("--") or not lines[-1].startswith("--"):
            lines.append(shlex.quote(word))
        else:
            lines[-1] += " " + shlex.quote(word)
    return " \\\n  ".join(lines)
