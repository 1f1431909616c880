"""What the simulator reports about itself and about a call, with SGLang 0.5.17's names: `meta_info`, /server_info, /v1/loads, /metrics."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from services.inference.simulator.gpu import Call, Gpu
from services.inference.simulator.timing import Calibration


@dataclass(slots=True)
class Totals:
    """Sums over ended calls."""

    calls: int = 0
    aborted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    verify_steps: int = 0

    def add(self, call: Call) -> None:
        """Count an ended call."""
        self.calls += 1
        self.aborted += call.finish == "abort"
        self.output_tokens += call.produced
        self.verify_steps += call.verify_steps
        if call.started_ms is not None:
            self.prompt_tokens += call.input_ids.size
            self.cached_tokens += call.cached_tokens


def meta_info(call: Call) -> dict[str, Any]:
    """Return `meta_info` as a server with `--enable-metrics` and speculation gives it; times are in seconds."""
    said: dict[str, Any] = {
        "id": call.rid,
        "finish_reason": _finish_reason(call),
        "prompt_tokens": call.input_ids.size,
        "weight_version": "simulator",
        "num_retractions": 0,
        "queue_time": 0.0 if call.started_ms is None else (call.started_ms - call.arrived_ms) / 1000,
        "reasoning_tokens": 0,
        "completion_tokens": call.produced,
        "cached_tokens": call.cached_tokens,
    }
    if call.ended_ms is not None:
        said["e2e_latency"] = (call.ended_ms - call.arrived_ms) / 1000
        if call.verify_steps:
            said["spec_verify_ct"] = call.verify_steps
            said["spec_accept_length"] = call.produced / call.verify_steps
    return said


def _finish_reason(call: Call) -> dict[str, Any] | None:
    match call.finish:
        case None:
            return None
        case "stop":
            return {"type": "stop", "matched": int(call.output_ids[-1])}
        case "length":
            return {"type": "length", "length": call.max_new_tokens}
        case "abort":
            return {"type": "abort", "message": "Abort in waiting queue" if call.started_ms is None else "Aborted"}


def server_info(calibration: Calibration) -> dict[str, Any]:
    """Return what /server_info says; `simulator` is true, which no real server has."""
    limits = calibration.limits
    return {
        "simulator": True,
        "simulated": calibration.engine,
        "model_path": f"simulator of {calibration.model}",
        "served_model_name": f"simulator of {calibration.model}",
        "context_length": limits.context_tokens,
        "max_req_input_len": limits.context_tokens - 1,
        "max_total_num_tokens": limits.kv_capacity_tokens,
        "max_running_requests": limits.max_running,
        "chunked_prefill_size": limits.chunk_tokens,
        "page_size": 1,
        "speculative_algorithm": "EAGLE3" if calibration.speculation.draft_tokens > 1 else None,
        "speculative_num_draft_tokens": calibration.speculation.draft_tokens,
        "version": f"aquiline-{version('aquiline')}",
        "status": "ready",
        "internal_states": [],
    }


def model_info(calibration: Calibration) -> dict[str, Any]:
    """Return what /model_info says."""
    return {"model_path": f"simulator of {calibration.model}", "is_generation": True, "simulator": True}


def loads(gpu: Gpu) -> dict[str, Any]:
    """Return what /v1/loads says, section `core`."""
    capacity = gpu.calibration.limits.kv_capacity_tokens
    used = gpu.used_tokens()
    waiting = sum(call.input_ids.size for call in gpu.waiting)
    rank = {
        "dp_rank": 0,
        "num_running_reqs": len(gpu.running) + len(gpu.prefilling),
        "num_waiting_reqs": len(gpu.waiting),
        "num_waiting_uncached_tokens": gpu.waiting_uncached_tokens(),
        "num_used_tokens": used,
        "num_total_tokens": used + waiting,
        "max_total_num_tokens": capacity,
        "max_running_requests": gpu.calibration.limits.max_running,
        "token_usage": used / capacity,
    }
    return {
        "timestamp": datetime.now(UTC).isoformat(),
        "version": f"aquiline-{version('aquiline')}",
        "accelerator": f"simulator of {gpu.calibration.accelerator}",
        "num_accelerators": 1,
        "loads": [rank],
    }


def prometheus(gpu: Gpu, totals: Totals, uptime_s: float) -> str:
    """Return what /metrics says, in Prometheus' text format."""
    capacity = gpu.calibration.limits.kv_capacity_tokens
    gauges = {
        "num_running_reqs": len(gpu.running) + len(gpu.prefilling),
        "num_queue_reqs": len(gpu.waiting),
        "num_used_tokens": gpu.used_tokens(),
        "token_usage": gpu.used_tokens() / capacity,
        "max_total_num_tokens": capacity,
        "cache_hit_rate": totals.cached_tokens / totals.prompt_tokens if totals.prompt_tokens else 0.0,
        "spec_accept_length": totals.output_tokens / totals.verify_steps if totals.verify_steps else 0.0,
        "gen_throughput": totals.output_tokens / uptime_s if uptime_s > 0 else 0.0,
    }
    counters = {
        "num_requests_total": totals.calls,
        "num_aborted_requests_total": totals.aborted,
        "prompt_tokens_total": totals.prompt_tokens,
        "cached_tokens_total": totals.cached_tokens,
        "generation_tokens_total": totals.output_tokens,
    }
    lines = []
    for kind, values in (("gauge", gauges), ("counter", counters)):
        for name, value in values.items():
            lines += [f"# TYPE sglang:{name} {kind}", f'sglang:{name}{{model_name="simulator"}} {value}']
    return "\n".join(lines) + "\n"
