"""A client for SGLang's `/generate` with the standard library alone, whose clock is the caller's.

One thread a call; bodies are made before the clock starts. `client.py health URL` is the readiness probe of the run scripts.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import statistics
import sys
import time
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

FIRST_ID, LAST_ID = 20, 800
"""Random prompts use ids of this range: text pieces of the shipped tokenizer, no special tokens."""


@dataclass
class Answer:
    """What came of one call: times in milliseconds from the moment the request was sent."""

    rid: str
    first_ms: float = 0.0
    """When the first text arrived."""
    total_ms: float = 0.0
    text: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    stamps: list[tuple[float, int]] = field(default_factory=list)
    """(milliseconds, output tokens so far) for every piece that arrived."""

    @property
    def finish(self) -> str:
        """Return `stop`, `length`, `abort`, or what the server said instead."""
        reason = self.meta.get("finish_reason")
        return str(reason.get("type")) if isinstance(reason, dict) else str(reason)

    @property
    def tokens_per_s(self) -> float | None:
        """Return the decode rate from the first piece to the last, None for a single piece."""
        if len(self.stamps) < 2 or self.stamps[-1][0] <= self.stamps[0][0]:
            return None
        (start, had), (end, has) = self.stamps[0], self.stamps[-1]
        return (has - had) / (end - start) * 1000

    @property
    def step_ms(self) -> float | None:
        """Return the mean time of a decoding step (with speculation: draft, verify and draft extend)."""
        rate, accepted = self.tokens_per_s, self.meta.get("spec_accept_length") or 1.0
        return None if rate is None else 1000 / rate * accepted


def random_ids(seed: str, count: int) -> list[int]:
    """Return `count` token ids, the same for the same seed."""
    source = random.Random(seed)  # noqa: S311 - a workload, no secret
    return [source.randrange(FIRST_ID, LAST_ID) for _ in range(count)]


class Server:
    """One engine at `url`."""

    def __init__(self, url: str, timeout_s: float = 60.0) -> None:
        """Name the server; nothing is opened before the first call."""
        parts = urlsplit(url)
        self.host, self.port, self.timeout_s = parts.hostname or "127.0.0.1", parts.port or 80, timeout_s

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=self.timeout_s)

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Return the parsed JSON answer (or its text); raise OSError on any status but 200."""
        connection = self._connect()
        try:
            # Bytes are JSON already: with 32K ids that takes tens of milliseconds, which are not to be timed.
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read()
            if response.status != 200:
                raise OSError(f"{method} {path}: {response.status} {text[:300]!r}")
            try:
                return json.loads(text)
            except ValueError:
                return text.decode(errors="replace")
        finally:
            connection.close()

    def load(self) -> dict[str, Any]:
        """Return `/v1/loads`' core numbers of the only rank."""
        loads: dict[str, Any] = self.request("GET", "/v1/loads?include=core")["loads"][0]
        return loads

    def idle(self) -> bool:
        """Return whether nothing runs and nothing waits."""
        load = self.load()
        return int(load["num_running_reqs"]) == 0 and int(load["num_waiting_reqs"]) == 0

    def wait_idle(self, seconds: float) -> float | None:
        """Return the seconds until nothing runs or waits any more, None when that took longer than `seconds`."""
        began = time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            if self.idle():
                return elapsed
            time.sleep(0.002)
        return None

    def generate(
        self,
        ids: Sequence[int],
        max_new_tokens: int = 1,
        *,
        ignore_eos: bool = True,
        temperature: float = 0.0,
        json_schema: str | None = None,
        rid: str | None = None,
        leave_after: int | None = None,
    ) -> Answer:
        """Stream one call to its end; `leave_after` closes the connection after so many pieces, like a client that vanishes."""
        answer = Answer(rid or uuid.uuid4().hex)
        sampling: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "ignore_eos": ignore_eos}
        if json_schema is not None:
            sampling["json_schema"] = json_schema
        body = json.dumps(
            {"rid": answer.rid, "input_ids": list(ids), "sampling_params": sampling, "stream": True}, separators=(",", ":")
        ).encode()
        connection = self._connect()
        try:
            connection.connect()
            began = time.perf_counter()
            connection.request("POST", "/generate", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                answer.error = f"{response.status} {response.read()[:300]!r}"
                return answer
            while line := response.readline():
                if not line.startswith(b"data:"):
                    continue
                at_ms = (time.perf_counter() - began) * 1000
                data = line[5:].strip()
                if data == b"[DONE]":
                    break
                piece = json.loads(data)
                if "error" in piece:
                    answer.error = str(piece["error"])
                    continue
                answer.meta, answer.text = piece["meta_info"], piece["text"]
                answer.stamps.append((at_ms, int(answer.meta.get("completion_tokens") or 0)))
                if len(answer.stamps) == 1:
                    answer.first_ms = at_ms
                answer.total_ms = at_ms
                if leave_after is not None and len(answer.stamps) >= leave_after:
                    break
        except (OSError, http.client.HTTPException, ValueError) as error:
            answer.error = f"{type(error).__name__}: {error}"
        finally:
            connection.close()
        return answer

    def at_once(self, calls: Sequence[dict[str, Any]]) -> list[Answer]:
        """Run the calls (keyword arguments of `generate`) at the same time."""
        with ThreadPoolExecutor(max_workers=len(calls)) as pool:
            return list(pool.map(lambda call: self.generate(**call), calls))


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    """Return median, least, most and count, rounded, of the values that are there."""
    present = sorted(value for value in values if value is not None)
    if not present:
        return None
    return {
        "median": round(statistics.median(present), 2),
        "min": round(present[0], 2),
        "max": round(present[-1], 2),
        "n": len(present),
    }


def main() -> None:
    """Exit 0 when the server at the URL is up."""
    if len(sys.argv) != 3 or sys.argv[1] != "health":
        raise SystemExit("usage: client.py health URL")
    with contextlib.suppress(OSError, http.client.HTTPException):
        Server(sys.argv[2], timeout_s=3).request("GET", "/health")
        return
    raise SystemExit(1)


if __name__ == "__main__":
    main()
