"""Where the time of a one-token call goes: a call of mode `flash` taken apart, one thing changed at a time, and the GPU's kernels in it."""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import time
import uuid
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import measure
from benchmarks.gpu.client import Server, random_ids, spread

LABELS = [301, 302, 303, 304]
CONTEXT, NEW = 32_768, 300
REPEATS = 12
_MICROSECONDS = 1_000.0


def ids_of(context: int, new: int, name: str) -> list[int]:
    """Return a prompt: a prefix of `context` tokens, the same for the same length, and `new` ones that no other name has."""
    return random_ids(f"prefix {context}", context) + random_ids(f"new {name}", new)


def body_of(ids: Sequence[int], *, tokens: int = 1, labels: Sequence[int] | None = LABELS) -> dict[str, Any]:
    """Return the body of `POST /generate` as the worker sends it; without log-probabilities when `labels` is None."""
    body: dict[str, Any] = {
        "rid": uuid.uuid4().hex,
        "input_ids": list(ids),
        "sampling_params": {"max_new_tokens": tokens, "temperature": 0.0},
        "stream": False,
    }
    if labels is not None:
        body |= {"return_logprob": True, "token_ids_logprob": list(labels)}
    return body


def timed(server: Server, path: str, bodies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Send the bodies one after the other; return their times, and of the server's own numbers those that are milliseconds or tokens."""
    times: list[float] = []
    said: dict[str, list[float]] = {}
    for data in [json.dumps(body).encode() for body in bodies]:
        began = time.perf_counter()
        answer = server.request("POST", path, data)
        times.append((time.perf_counter() - began) * 1000)
        meta = answer.get("meta_info") if isinstance(answer, dict) else None
        for name, value in (meta or {}).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                said.setdefault(name, []).append(float(value))
    return {"ms": spread(times), "server": {name: round(statistics.median(values), 4) for name, values in sorted(said.items())}}


def calls(server: Server, context: int, new: int, *, tokens: int = 1, labels: Sequence[int] | None = LABELS) -> dict[str, Any]:
    """Time calls with `new` tokens behind a cached prefix of `context`."""
    server.request("POST", "/generate", body_of(ids_of(context, 1, "fill"), tokens=0, labels=labels))
    # New to the server whatever was asked before: the first call is not timed.
    names = [f"{uuid.uuid4().hex} {number}" for number in range(REPEATS)]
    made = [body_of(ids_of(context, new, name), tokens=tokens, labels=labels) for name in names]
    server.request("POST", "/generate", made.pop())
    return timed(server, "/generate", made)


def scored(server: Server, context: int, new: int) -> dict[str, Any]:
    """Time `/v1/score` with the same ids, the prefix as its query and the new ones as its item."""
    prefix = random_ids(f"prefix {context}", context)
    made = [
        {"query": prefix, "items": [random_ids(f"new score {number}", new)], "label_token_ids": LABELS, "apply_softmax": False}
        for number in range(REPEATS)
    ]
    server.request("POST", "/v1/score", made.pop())
    return timed(server, "/v1/score", made)


def refused(server: Server, context: int, new: int) -> dict[str, Any]:
    """Time calls that the server reads whole and refuses before its scheduler sees them: HTTP, ids from JSON, and their checks."""
    times = []
    for number in range(REPEATS):
        data = json.dumps(body_of(ids_of(context, new, f"refused {number}"), tokens=-5)).encode()
        began = time.perf_counter()
        try:
            server.request("POST", "/generate", data)
        except OSError:
            times.append((time.perf_counter() - began) * 1000)
    return {"ms": spread(times)}


def at_once(server: Server, count: int) -> dict[str, Any]:
    """Time `count` one-token calls that arrive together, by SGLang's streamed answers."""
    rounds = []
    for number in range(6):
        prompts = [{"ids": ids_of(CONTEXT, NEW, f"together {count} {number} {one}"), "max_new_tokens": 1} for one in range(count)]
        rounds += [answer.total_ms for answer in measure.checked(server.at_once(prompts))]
    return {"ms": spread(rounds)}


def kernels(server: Server, folder: Path, count: int = 5) -> dict[str, Any]:
    """Profile `count` calls; return the GPU's busy time a call, all kernels' and the longest ones' by name.

    The profiler itself makes calls longer: compare the shares, not the total.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.rglob("*.json.gz"))
    server.request("POST", "/start_profile", {"output_dir": str(folder), "activities": ["GPU"]})
    took = timed(server, "/generate", [body_of(ids_of(CONTEXT, NEW, f"profiled {number}")) for number in range(count)])
    server.request("POST", "/stop_profile")
    until = time.perf_counter() + 40
    while not (made := set(folder.rglob("*.json.gz")) - before) and time.perf_counter() < until:
        time.sleep(0.5)
    events: list[dict[str, Any]] = []
    for path in made:
        events += read_whole(path, until)
    return {"calls": took, **busy(events, count)}


def read_whole(path: Path, until: float) -> list[dict[str, Any]]:
    """Return a trace's events once its file is whole; raise the last error when it is not by `until`."""
    while True:
        try:
            return list(json.loads(gzip.decompress(path.read_bytes()))["traceEvents"])
        except (EOFError, OSError, ValueError):
            if time.perf_counter() > until:
                raise
            time.sleep(0.5)


def busy(events: Sequence[dict[str, Any]], count: int) -> dict[str, Any]:
    """Return milliseconds a call in which the GPU runs kernels or copies, and the kernels that take most of it."""
    work = [event for event in events if event.get("cat") in {"kernel", "gpu_memcpy", "gpu_memset"} and "dur" in event]
    by_name: Counter[str] = Counter()
    for event in work:
        by_name[str(event["name"])[:90]] += event["dur"]
    spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in work)
    busy_us, end = 0.0, float("-inf")
    for start, stop in spans:
        busy_us += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return {
        "gpu_busy_ms_a_call": round(busy_us / _MICROSECONDS / count, 3),
        "kernels_a_call": round(len(work) / count, 1),
        "longest_ms_a_call": {name: round(us / _MICROSECONDS / count, 3) for name, us in by_name.most_common(12)},
    }


def host(context: int = CONTEXT) -> dict[str, Any]:
    """Time what the host does with the ids, without a server: JSON there and back, and the radix tree's match."""
    ids = ids_of(context, NEW, "host")
    found: dict[str, Any] = {"bytes": len(json.dumps(ids))}

    def median_ms(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(20):
            began = time.perf_counter()
            work()
            times.append((time.perf_counter() - began) * 1000)
        return round(statistics.median(times), 3)

    text = json.dumps(ids)
    found["json_dumps_ms"], found["json_loads_ms"] = median_ms(lambda: json.dumps(ids)), median_ms(lambda: json.loads(text))
    try:
        import orjson  # noqa: PLC0415 - one of the rows

        found["orjson_loads_ms"] = median_ms(lambda: orjson.loads(text))
    except ImportError as error:
        found["orjson_loads_ms"] = str(error)
    try:
        found["radix_match_ms"] = median_ms(_radix_match(ids))
    except Exception as error:  # noqa: BLE001 - SGLang's classes change from release to release
        found["radix_match_ms"] = f"{type(error).__name__}: {error}"
    return found


def _radix_match(ids: list[int]) -> Callable[[], Any]:
    """Return a match of `ids` in SGLang's own radix tree, of which it holds all but the new ones."""
    import torch  # noqa: PLC0415 - the host's
    from sglang.srt.mem_cache import radix_cache  # noqa: PLC0415

    tree = radix_cache.RadixCache.create_simulated()
    held, asked_ids = array("q", ids[:-NEW]), array("q", ids)
    key = radix_cache.RadixKey(token_ids=held, extra_key=None)
    base_params = __import__("sglang.srt.mem_cache.base_prefix_cache", fromlist=["InsertParams", "MatchPrefixParams"])
    tree.insert(base_params.InsertParams(key=key, value=torch.arange(len(ids) - NEW)))
    asked = base_params.MatchPrefixParams(key=radix_cache.RadixKey(token_ids=asked_ids, extra_key=None))
    return lambda: tree.match_prefix(asked)


def hicache(server: Server) -> dict[str, Any]:
    """Time a prefix of 32K cold, cached on the card, and after others have driven it into the host's memory."""
    prompts = {number: random_ids(f"hicache {number}", CONTEXT) for number in range(5)}
    found: dict[str, Any] = {"cold": [], "on_the_card": [], "from_the_host": []}

    def one(kind: str, number: int) -> None:
        data = json.dumps(body_of([*prompts[number], *random_ids(f"{kind} {number}", NEW)], labels=None)).encode()
        began = time.perf_counter()
        meta = server.request("POST", "/generate", data)["meta_info"]
        found[kind].append({"ms": round((time.perf_counter() - began) * 1000, 1), "cached_tokens": meta.get("cached_tokens")})

    for number in prompts:
        one("cold", number)
        one("on_the_card", number)
    time.sleep(2)  # what is written to the host goes on behind the answers
    for number in prompts:
        one("from_the_host", number)
    return found


def main() -> None:
    """Take the call apart on the server at `--url` and write what was found under `--name` into `--results`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    parser.add_argument("--name", required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--profiles", type=Path, default=Path("profiles"))
    parser.add_argument("--host-only", action="store_true", help="time what needs no server")
    parser.add_argument("--hicache", action="store_true", help="time a prefix that comes back from the host's memory")
    arguments = parser.parse_args()
    results, name = measure.Results(arguments.results), arguments.name
    if arguments.host_only:
        results.stage(name, "ids and radix tree", 1, host)
        return
    server = Server(arguments.url, timeout_s=120.0)
    results.stage(name, "server", 1, partial(measure.describe, server))
    if arguments.hicache:
        results.stage(name, "32K out and back", 15, partial(hicache, server))
        return
    for context in (1_024, 8_192, CONTEXT):
        results.stage(name, f"{NEW} new behind {context}", 8, partial(calls, server, context, NEW))
    for new in (1, 64, 600):
        results.stage(name, f"{new} new behind {CONTEXT}", 5, partial(calls, server, CONTEXT, new))
    results.stage(name, "without log-probabilities", 5, partial(calls, server, CONTEXT, NEW, labels=None))
    results.stage(name, "no token, without log-probabilities", 5, partial(calls, server, CONTEXT, NEW, tokens=0, labels=None))
    results.stage(name, "/v1/score", 5, partial(scored, server, CONTEXT, NEW))
    results.stage(name, "refused before the scheduler", 5, partial(refused, server, CONTEXT, NEW))
    for count in (3, 8):
        results.stage(name, f"{count} at once", 5, partial(at_once, server, count))
    results.stage(name, "kernels", 50, partial(kernels, server, arguments.profiles / name))


if __name__ == "__main__":
    main()
