"""Structured output: answers under the product's JSON grammar at natural acceptance, aborts, and clients that disappear."""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import answers, measure
from benchmarks.gpu.client import Answer, Server, spread


def first_key_values(text: str) -> str:
    """Return the answer's action, for counting which branches were taken."""
    try:
        return str(json.loads(text).get("action"))
    except (ValueError, AttributeError):
        return "unreadable"


def grammar(server: Server, schema: str, *, length: int, total: int, count: int, keep: Path) -> dict[str, Any]:
    """Ask `total` answers, `count` at once, each behind one of 8 cached prefixes with 300 new tokens; half sampled, half greedy."""
    for number in range(8):
        measure.checked([server.generate(measure.prefix(length, number))])
    found: list[Answer] = []
    began = time.perf_counter()
    for batch in range(0, total, count):
        calls = [
            {
                "ids": measure.prefix(length, number % 8) + measure.tail(f"g{number}", 300),
                "max_new_tokens": 400,
                "ignore_eos": False,
                "temperature": 0.0 if number % 2 else 0.8,
                "json_schema": schema,
            }
            for number in range(batch, min(batch + count, total))
        ]
        found += server.at_once(calls)
    elapsed = time.perf_counter() - began
    faults = [(a.error or answers.fault(a.text, schema) or (a.finish != "stop" and f"ended by {a.finish}")) for a in found]
    with keep.open("w") as lines:
        for answer, wrong in zip(found, faults, strict=True):
            lines.write(
                json.dumps(
                    {
                        "text": answer.text,
                        "fault": wrong or None,
                        "first_ms": round(answer.first_ms, 1),
                        "total_ms": round(answer.total_ms, 1),
                        "meta": {key: answer.meta.get(key) for key in ("completion_tokens", "cached_tokens", "prompt_tokens",
                                                                      "spec_accept_length", "finish_reason", "queue_time")},
                    }
                )
                + "\n"
            )  # fmt: skip
    ended = [answer for answer in found if not answer.error]
    return {
        "answers": len(found),
        "valid_and_complete": sum(not wrong for wrong in faults),
        "faults": dict(Counter(str(wrong) for wrong in faults if wrong).most_common(5)),
        "actions": dict(Counter(first_key_values(answer.text) for answer in found)),
        "seconds": round(elapsed, 1),
        "first_ms": spread(a.first_ms for a in ended),
        "total_ms": spread(a.total_ms for a in ended),
        "tokens": spread(a.meta.get("completion_tokens") for a in ended),
        "tokens_per_s": spread(a.tokens_per_s for a in ended),
        "step_ms": spread(a.step_ms for a in ended),
        "accept_length": spread(a.meta.get("spec_accept_length") for a in ended),
        "cached_share": spread(int(a.meta["cached_tokens"]) / int(a.meta["prompt_tokens"]) for a in ended),
    }


def _interrupted(server: Server, call: dict[str, Any], after_s: float | None, interrupt: Callable[[], object] | None) -> dict[str, Any]:
    """Run `call`, interrupt it, and tell how long until it ended and until a new short call was answered by a free engine."""
    answers_: list[Answer] = []
    worker = threading.Thread(target=lambda: answers_.append(server.generate(**call)), daemon=True)
    worker.start()
    if interrupt is None:
        worker.join(60)
        began = time.perf_counter()
    else:
        time.sleep(after_s or 0.0)
        began = time.perf_counter()
        interrupt()
        worker.join(60)
    ended_ms = (time.perf_counter() - began) * 1000
    idle_s = server.wait_idle(30)
    probe = server.generate(measure.tail(f"probe {call['rid']}"), 1)
    answer = answers_[0]
    return {
        "ended_ms": round(ended_ms, 1),
        "idle_ms": None if idle_s is None else round(ended_ms + idle_s * 1000, 1),
        "probe_ms": round(probe.first_ms, 1),
        "tokens": answer.meta.get("completion_tokens"),
        "finish": answer.finish if answer.meta else answer.error,
    }


def interruptions(server: Server, schema: str, length: int, repeats: int) -> dict[str, Any]:
    """Abort while decoding, under a grammar and during a cold prefill, and close the connection while decoding."""

    def abort(rid: str) -> object:
        return server.request("POST", "/abort_request", {"rid": rid})

    rows: dict[str, list[dict[str, Any]]] = {"decoding": [], "grammar": [], "cold prefill": [], "client left": []}
    for number in range(repeats):
        base = measure.prefix(length, number % 8)
        long: dict[str, Any] = {"ids": base + measure.tail(f"i{number}"), "max_new_tokens": 3_000, "rid": f"{number:032x}"}
        rows["decoding"].append(_interrupted(server, long, 0.4, partial(abort, long["rid"])))
        bound = long | {"ids": base + measure.tail(f"j{number}"), "rid": f"1{number:031x}", "json_schema": schema, "ignore_eos": False}
        rows["grammar"].append(_interrupted(server, bound, 0.25, partial(abort, bound["rid"])))
        cold: dict[str, Any] = {"ids": measure.prefix(60_000, 1_000 + number), "max_new_tokens": 8, "rid": f"2{number:031x}"}
        rows["cold prefill"].append(_interrupted(server, cold, 0.5, partial(abort, cold["rid"])))
        gone = long | {"ids": base + measure.tail(f"k{number}"), "rid": f"3{number:031x}", "leave_after": 20}
        rows["client left"].append(_interrupted(server, gone, None, None))
    return {
        kind: {
            "ended_ms": spread(row["ended_ms"] for row in found),
            "idle_ms": spread(row["idle_ms"] for row in found),
            "probe_ms": spread(row["probe_ms"] for row in found),
            "rows": found,
        }
        for kind, found in rows.items()
    }


def prefill_only(server: Server, length: int) -> dict[str, Any]:
    """Send a prefix ahead with `max_new_tokens` 0, as pre-warming does, and see how much of it the next call finds cached."""
    rows = []
    for number in range(4):
        ids = measure.prefix(length, 500 + number)
        body = {"rid": f"4{number:031x}", "input_ids": ids, "sampling_params": {"max_new_tokens": 0, "temperature": 0.0}}
        began = time.perf_counter()
        sent = server.request("POST", "/generate", body)["meta_info"]
        ahead_ms = (time.perf_counter() - began) * 1000
        answer = measure.checked([server.generate(ids + measure.tail(f"p{number}"))])[0]
        rows.append(
            {
                "ahead_ms": round(ahead_ms, 1),
                "ahead_tokens": sent.get("completion_tokens"),
                "then_ms": round(answer.first_ms, 1),
                "then_cached": answer.meta.get("cached_tokens"),
            }
        )
    return {"length": length, "rows": rows}


def main() -> None:
    """Measure the server at `--url` and write what was found into `--results`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--name", default="eagle3")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--length", type=int, default=32_768)
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=4)
    arguments = parser.parse_args()
    server, results = Server(arguments.url), measure.Results(arguments.results)
    schema, source = answers.schema_text()

    def stage(name: str, needs_s: float, work: Callable[[], Any]) -> None:
        results.stage(arguments.name, name, needs_s, work)

    stage("schema", 1, lambda: {"from": source, "schema": json.loads(schema)})
    stage("server", 1, partial(measure.describe, server))
    stage("warm", 30, partial(measure.warm, server, (8_192, arguments.length), (1, arguments.at_once), schema))
    keep = arguments.results.with_name("structured_output-answers.jsonl")
    asked = partial(grammar, server, schema, length=arguments.length, total=arguments.answers, count=arguments.at_once, keep=keep)
    stage("grammar", 60, asked)
    stage("interruptions", 40, partial(interruptions, server, schema, arguments.length, 5))
    stage("prefill only", 10, partial(prefill_only, server, 8_192))
    stage("decode without grammar", 10, partial(measure.decode, server, arguments.length, 256, 3))
    stage("end", 1, partial(measure.describe, server))


if __name__ == "__main__":
    main()
