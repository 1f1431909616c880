"""The GPU's schedule, as SGLang makes it: first come first served, prefill before decode, in chunks; KV memory is finite.

Pure: `next_step` returns what the GPU does next and for how long, `finish` records that it is done. The caller does the waiting, on
its own clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from services.inference.engine import TokenIds
from services.inference.simulator.radix import Node, RadixTree
from services.inference.simulator.timing import Acceptance, Calibration

Finish = Literal["stop", "length", "abort"]


@dataclass(slots=True, eq=False)
class Call:
    """One request. `input_ids` has shape (tokens,); `output_ids` is its answer, the end token included."""

    rid: str
    input_ids: TokenIds
    output_ids: TokenIds
    max_new_tokens: int
    acceptance: Acceptance
    arrived_ms: float
    started_ms: float | None = None
    """When its first prefill step began."""
    ended_ms: float | None = None
    cached_tokens: int = 0
    prefilled: int = 0
    """Tokens of the prompt that have been computed or were cached."""
    produced: int = 0
    """Tokens of the answer that there are."""
    verify_steps: int = 0
    finish: Finish | None = None
    node: Node | None = field(default=None, repr=False)

    @property
    def wanted(self) -> int:
        """Return how many tokens the answer will have."""
        return min(self.output_ids.size, self.max_new_tokens)


@dataclass(frozen=True, slots=True)
class Step:
    """What the GPU does for `duration_ms`: `pieces`, each a call and its tokens, are prefilled, or else `decoding` go on."""

    duration_ms: float
    pieces: tuple[tuple[Call, int], ...] = ()
    decoding: tuple[Call, ...] = ()


class PromptTooLongError(ValueError):
    """A prompt that the engine can never serve."""


class Gpu:
    """Waiting, prefilling and running calls, and the prefix cache that they share."""

    def __init__(self, calibration: Calibration) -> None:
        """Start idle, with an empty cache."""
        self.calibration = calibration
        self.tree = RadixTree()
        self.waiting: deque[Call] = deque()
        self.prefilling: list[Call] = []
        """Admitted calls whose prompt is not computed yet; between steps at most one, whose prompt takes several."""
        self.running: list[Call] = []
        self._reserved = 0
        # With EAGLE the cache is keyed by pairs of tokens, so that of a common prefix the last token is never found.
        self._unfound = 1 if calibration.speculation.draft_tokens > 1 else 0

    def submit(self, call: Call) -> None:
        """Put `call` into the queue; raise PromptTooLongError."""
        limits = self.calibration.limits
        if call.input_ids.size >= limits.context_tokens:
            raise PromptTooLongError(
                f"The input ({call.input_ids.size} tokens) is longer than the model's context length ({limits.context_tokens} tokens)."
            )
        room = min(limits.context_tokens, limits.kv_capacity_tokens) - call.input_ids.size - 1
        if room < 0:
            raise PromptTooLongError(
                f"The input ({call.input_ids.size} tokens) is longer than the KV cache ({limits.kv_capacity_tokens} tokens)."
            )
        call.max_new_tokens = min(call.max_new_tokens, room)
        self.waiting.append(call)

    def next_step(self, now_ms: float) -> Step | None:
        """Return what to do next, None when there is nothing to do."""
        if pieces := self._plan_prefill(now_ms):
            spans = [(call.prefilled, new) for call, new in pieces]
            return Step(self.calibration.prefill_ms(spans), pieces=tuple(pieces))
        if self.running:
            contexts = [call.input_ids.size + call.produced for call in self.running]
            return Step(self.calibration.decode_ms(contexts), decoding=tuple(self.running))
        return None

    def finish(self, step: Step, now_ms: float) -> list[Call]:
        """Take in that `step` has been done; return the calls that have more of an answer, or have ended."""
        changed = []
        for call, new in step.pieces:
            if call.finish is not None:
                # Aborted during the step, which was computed all the same: SGLang keeps it (`release_kv_cache`).
                self.tree.insert(call.input_ids[: call.prefilled + new])
                self._make_room()
                continue
            self._keep_prefix(call, new)
            if call.prefilled == call.input_ids.size:
                self.prefilling.remove(call)
                self.running.append(call)
                self._produce(call, 1, now_ms)
                changed.append(call)
        for call in step.decoding:
            if call.finish is None:
                call.verify_steps += 1
                self._produce(call, call.acceptance.draw(), now_ms)
                changed.append(call)
        return changed

    def abort(self, rid: str, now_ms: float) -> list[Call]:
        """End every call whose rid starts with `rid`, freeing what it holds at once; return them."""
        aborted = [call for call in self._calls() if call.rid.startswith(rid)]
        for call in aborted:
            self._end(call, "abort", now_ms)
        return aborted

    def waiting_uncached_tokens(self) -> int:
        """Return the prompt tokens that still have to be prefilled."""
        waiting = sum(call.input_ids.size - self.tree.peek(call.input_ids) for call in self.waiting)
        return waiting + sum(call.input_ids.size - call.prefilled for call in self.prefilling)

    def used_tokens(self) -> int:
        """Return the KV tokens in use by calls in flight; the rest of the cache may be evicted."""
        return self.tree.locked_tokens + self._reserved

    def idle(self) -> bool:
        """Return whether no call waits or runs."""
        return next(self._calls(), None) is None

    def flush(self) -> bool:
        """Empty the cache and return True, or return False when calls wait or run."""
        if not self.idle():
            return False
        self.tree = RadixTree()
        return True

    def _calls(self) -> Iterator[Call]:
        yield from self.waiting
        yield from self.prefilling
        yield from self.running

    def _plan_prefill(self, now_ms: float) -> list[tuple[Call, int]]:
        budget = self.calibration.limits.chunk_tokens
        pieces: list[tuple[Call, int]] = []
        for call in self.prefilling:
            new = min(budget, call.input_ids.size - call.prefilled)
            pieces.append((call, new))
            budget -= new
        while budget > 0 and self.waiting and len(self.running) + len(self.prefilling) < self.calibration.limits.max_running:
            call = self.waiting[0]
            if not self._admit(call):
                break
            self.waiting.popleft()
            self.prefilling.append(call)
            call.started_ms = now_ms
            new = min(budget, call.input_ids.size - call.prefilled)
            pieces.append((call, new))
            budget -= new
        return pieces

    def _lookup(self, call: Call) -> tuple[int, Node]:
        # The last token is always computed: its logits give the first token of the answer.
        held, node = self.tree.match(call.input_ids[:-1])
        return max(0, held - self._unfound), node

    def _admit(self, call: Call) -> bool:
        """Lock what the cache holds of the prompt and reserve room for the rest; False when there is none."""
        cached, node = self._lookup(call)
        self.tree.lock(node)
        needed = call.input_ids.size - cached + call.max_new_tokens
        if self.used_tokens() + needed > self.calibration.limits.kv_capacity_tokens:
            self.tree.unlock(node)
            return False
        call.cached_tokens = call.prefilled = cached
        call.node = node
        self._reserved += needed
        self._make_room()
        return True

    def _make_room(self) -> None:
        excess = self.tree.tokens + self._reserved - self.calibration.limits.kv_capacity_tokens
        if excess > 0:
            self.tree.evict(excess)

    def _keep_prefix(self, call: Call, new: int) -> None:
        call.prefilled += new
        self._reserved -= new
        self._stand_on(call, self.tree.insert(call.input_ids[: call.prefilled]))

    def _stand_on(self, call: Call, node: Node) -> None:
        self.tree.lock(node)
        if call.node is not None:
            self.tree.unlock(call.node)
        call.node = node

    def _produce(self, call: Call, tokens: int, now_ms: float) -> None:
        call.produced = min(call.produced + tokens, call.wanted)
        if call.produced == call.wanted:
            self._end(call, "stop" if call.wanted == call.output_ids.size else "length", now_ms)

    def _end(self, call: Call, finish: Finish, now_ms: float) -> None:
        call.finish = finish
        call.ended_ms = now_ms
        for queue in (self.waiting, self.prefilling, self.running):
            if call in queue:
                queue.remove(call)
        if call.node is None:
            return
        self._reserved -= call.input_ids.size - call.prefilled + call.max_new_tokens
        self.tree.unlock(call.node)
        call.node = None
        if call.prefilled == call.input_ids.size and call.produced > 1:
            # The last token's KV entry is never computed.
            self.tree.insert(np.concatenate([call.input_ids, call.output_ids[: call.produced - 1]]))
            self._make_room()
