"""The example consumer: each signal is acted on once, while it is valid, and not once it was withdrawn."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signal_inbox import Act, Ignored, SignalInbox, Withdraw

from schemas import Action, Cancel, CancelReason, RunMode, Signal
from schemas.examples import EXAMPLES

VALID_UNTIL_MS = 10_000


def signal(number: int = 1, **changes: Any) -> Signal:
    example = EXAMPLES[Signal]
    assert isinstance(example, Signal)
    return example.model_copy(update={"run_mode": RunMode.LIVE, "signal_id": UUID(int=number), "valid_until_ms": VALID_UNTIL_MS} | changes)


def cancel(number: int = 1) -> Cancel:
    about = signal(number)
    return Cancel(
        schema_version=1,
        run_mode=RunMode.LIVE,
        symbol=about.symbol,
        interval=about.interval,
        mode=about.mode,
        signal_id=about.signal_id,
        ts_decided_ms=about.ts_decided_ms,
        reason=CancelReason.HALTED,
    )


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4), st.integers(0, 20_000)), max_size=40))
def test_whatever_comes_twice_late_or_out_of_order_no_signal_is_acted_on_twice_late_or_after_its_cancel(
    arrivals: list[tuple[bool, int, int]],
) -> None:
    inbox = SignalInbox()
    acted: set[int] = set()
    withdrawn: set[int] = set()
    cancelled: set[int] = set()
    for is_cancel, number, now_ms in arrivals:
        message = cancel(number) if is_cancel else signal(number)
        step = inbox.take(message.encode(), now_ms)
        if isinstance(step, Act):
            assert number not in acted | cancelled
            assert now_ms <= VALID_UNTIL_MS
            acted.add(number)
        elif isinstance(step, Withdraw):
            assert number in acted - withdrawn
            withdrawn.add(number)
        if is_cancel:
            cancelled.add(number)
    assert withdrawn == acted & cancelled


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"no json", "malformed"),
        (None, "malformed"),
        (signal(run_mode=RunMode.SHADOW).encode(), "other_mode"),
        (signal(action=Action.HOLD, entry_type=None, entry=None, stop=None, target=None).encode(), "nothing_to_do"),
        (signal(valid_until_ms=4_999).encode(), "expired"),
        (cancel().encode(), "unknown"),
    ],
)
def test_what_is_not_acted_on_says_why(value: bytes | None, why: str) -> None:
    step = SignalInbox().take(value, 5_000)
    assert isinstance(step, Ignored)
    assert step.why == why


def test_orders_from_before_a_restart_are_not_placed_again() -> None:
    assert SignalInbox([UUID(int=1)]).take(signal().encode(), 0) == Ignored("duplicate")
