"""The stages of the GPU runs: what is asked of one server, timed, and written down as it comes.

Every stage returns plain numbers in milliseconds and tokens; `Results` keeps them in one JSON file that is complete after each.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.gpu.client import Answer, Server, random_ids, spread

TAIL_TOKENS = 64
ANSWER_TOKENS = 80


class Results:
    """A JSON file of results by (server, stage), rewritten after every stage; stages are skipped when the time is up."""

    def __init__(self, path: Path) -> None:
        """Go on with the file at `path`, or start it; the run's end is in `BEGAN` and `BUDGET`, seconds."""
        self.path = path
        self.data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.ends = float(os.environ.get("BEGAN", str(time.time()))) + float(os.environ.get("BUDGET", "1e9"))

    def left(self) -> float:
        """Return the seconds that are left of the run's budget."""
        return self.ends - time.time()

    def stage(self, server: str, name: str, needs_s: float, work: Callable[[], Any]) -> Any:
        """Run `work` unless fewer than `needs_s` seconds are left; a failing stage is written down and the run goes on."""
        if self.left() < needs_s:
            result: Any = {"skipped": f"{self.left():.0f} s were left, {needs_s:.0f} s are needed"}
        else:
            began = time.perf_counter()
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - one broken stage must not cost the stages after it
                result = {"failed": f"{type(error).__name__}: {error}"}
            if isinstance(result, dict):
                result["stage_s"] = round(time.perf_counter() - began, 1)
        self.keep(server, name, result)
        return result

    def keep(self, server: str, name: str, result: Any) -> None:
        """Write down a stage's result."""
        self.data.setdefault(server, {})[name] = result
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.data, indent=1))
        partial.replace(self.path)
        print(f"[{self.left():4.0f} s left] {server} {name}: {json.dumps(result)[:900]}", flush=True)


def checked(answers: list[Answer]) -> list[Answer]:
    """Return the answers; raise when one of them failed."""
    for answer in answers:
        if answer.error:
            raise RuntimeError(f"call {answer.rid} failed: {answer.error}")
    return answers


def prefix(length: int, number: int) -> list[int]:
    """Return the prompt prefix of one symbol: fixed random ids, no two numbers sharing a start."""
    return random_ids(f"prefix {length} {number}", length)


def tail(name: str, tokens: int = TAIL_TOKENS) -> list[int]:
    """Return the uncached end of a prompt."""
    return random_ids(f"tail {name}", tokens)


def describe(server: Server) -> dict[str, Any]:
    """Return what the server says it is."""
    info = server.request("GET", "/server_info")
    wanted = (
        "version", "attention_backend", "prefill_attention_backend", "decode_attention_backend", "page_size",
        "chunked_prefill_size", "max_total_num_tokens", "max_running_requests", "mem_fraction_static", "schedule_policy",
        "speculative_algorithm", "speculative_num_steps", "speculative_eagle_topk", "speculative_num_draft_tokens",
        "speculative_draft_window_size", "speculative_attention_mode", "cuda_graph_config", "disable_overlap_schedule",
        "startup_time",
    )  # fmt: skip
    return {key: info[key] for key in wanted if key in info} | {"loads": server.load()}


def warm(server: Server, lengths: tuple[int, ...], concurrent: tuple[int, ...], json_schema: str | None = None) -> dict[str, Any]:
    """Send one call of every kind, so that no kernel is compiled and no graph captured under the clock."""
    times: dict[str, Any] = {}
    for length in (1_024, *lengths):
        ids = prefix(length, 99)
        times[f"cold {length}"] = round(checked([server.generate(ids)])[0].first_ms, 1)
        times[f"cached {length}"] = round(checked([server.generate(ids + tail("w"), 8)])[0].first_ms, 1)
    for count in concurrent:
        calls = [{"ids": prefix(1_024, 99) + tail(f"w{count} {n}"), "max_new_tokens": 24} for n in range(count)]
        times[f"{count} at once"] = round(max(answer.total_ms for answer in checked(server.at_once(calls))), 1)
    if json_schema is not None:
        # Sampling has kernels of its own, which took 84 s to compile when the first sampled call came under the clock.
        for name, temperature in (("grammar", 0.0), ("grammar, sampled", 0.8)):
            call: dict[str, Any] = {"ids": prefix(1_024, 99), "max_new_tokens": 200, "ignore_eos": False, "json_schema": json_schema}
            times[name] = round(checked([server.generate(**call, temperature=temperature)])[0].total_ms, 1)
    return times


def first_tokens(server: Server, length: int, prefixes: int, repeats: int) -> dict[str, Any]:
    """Time to first token: `prefixes` cold prompts of `length` tokens, then each again with 64 new ids at its end."""
    cold = [checked([server.generate(prefix(length, number))])[0] for number in range(prefixes)]
    cached = [checked([server.generate(prefix(length, number % prefixes) + tail(f"f{length} {number}"))])[0] for number in range(repeats)]
    return {
        "cold_ms": spread(a.first_ms for a in cold),
        "cold_cached_tokens": max(int(a.meta["cached_tokens"]) for a in cold),
        "cached_ms": spread(a.first_ms for a in cached),
        "uncached_tokens": spread(length + TAIL_TOKENS - int(a.meta["cached_tokens"]) for a in cached),
    }


def appends(server: Server, length: int, sizes: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Time to first token by the number of new tokens behind a cached prefix of `length`."""
    rows: dict[str, Any] = {}
    for size in sizes:
        found = [checked([server.generate(prefix(length, 0) + tail(f"a{length} {size} {n}", size))])[0] for n in range(repeats)]
        rows[str(size)] = spread(a.first_ms for a in found)
    return rows


def decode(server: Server, length: int, tokens: int, repeats: int) -> dict[str, Any]:
    """Decode rate of a single call behind a cached prefix of `length`."""
    found = [checked([server.generate(prefix(length, n % 2) + tail(f"d{length} {n}"), tokens)])[0] for n in range(repeats)]
    return {
        "tokens_per_s": spread(a.tokens_per_s for a in found),
        "step_ms": spread(a.step_ms for a in found),
        "accept_length": spread(a.meta.get("spec_accept_length") for a in found),
    }


def together(server: Server, length: int, count: int, rounds: int) -> dict[str, Any]:
    """64 new tokens in and 80 out behind cached prefixes of different symbols, `count` calls at once, `rounds` times."""
    found: list[Answer] = []
    for number in range(rounds):
        calls = [
            {"ids": prefix(length, n) + tail(f"t{length} {count} {number} {n}"), "max_new_tokens": ANSWER_TOKENS} for n in range(count)
        ]
        found += checked(server.at_once(calls))
    return {
        "first_ms": spread(a.first_ms for a in found),
        "total_ms": spread(a.total_ms for a in found),
        "tokens_per_s": spread(a.tokens_per_s for a in found),
        "accept_length": spread(a.meta.get("spec_accept_length") for a in found),
        "cached_tokens": spread(int(a.meta["cached_tokens"]) for a in found),
        "queue_ms": spread(1000 * a.meta["queue_time"] if a.meta.get("queue_time") is not None else None for a in found),
    }


def disturbed(server: Server, length: int, sizes: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Time an answer of 80 tokens while another call brings `size` uncached tokens: what one slice of pre-warming costs it."""
    rows: dict[str, Any] = {}
    for size in sizes:
        totals, gaps = [], []
        for number in range(repeats):
            name = f"x{length} {size} {number}"
            calls = [{"ids": prefix(length, 1) + tail(name), "max_new_tokens": ANSWER_TOKENS}]
            if size:
                calls.append({"ids": prefix(length, 0) + tail(name + " slice", size), "max_new_tokens": 1})
            answer = checked(server.at_once(calls))[0]
            totals.append(answer.total_ms)
            times = [at for at, _ in answer.stamps]
            gaps.append(max((after - before for before, after in pairwise(times)), default=0.0))
        rows[str(size)] = {"total_ms": spread(totals), "longest_gap_ms": spread(gaps)}
    return rows
