"""Which slot of a llama.cpp server serves which prompt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.engine import TokenIds
from services.inference.slots import Slots


def prompt(owner: int, epoch: int, bars: int) -> TokenIds:
    """Return a prompt whose rules all share, whose history the epoch decides, and that grows by bars."""
    history = np.arange(100) + 1_000 * owner + 10_000 * epoch
    return np.concatenate([np.arange(20), history, np.arange(bars) + 500_000]).astype(np.int32)


def take(slots: Slots, owner: int, ids: TokenIds, *, ahead: bool = False) -> int | None:
    number = slots.take(f"S{owner}", ids, ahead=ahead)
    if number is not None:
        slots.release(number)
    return number


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=60))
def test_with_two_slots_a_symbol_each_symbol_finds_its_prompt_and_its_next_one_where_it_left_them(steps: list[tuple[int, bool]]) -> None:
    slots = Slots(7)
    epochs, bars = [0] * 3, [1] * 3
    home: dict[int, int | None] = {}
    following: dict[int, int | None] = {}
    for owner, next_epoch in steps:
        if next_epoch and owner in home:
            following[owner] = take(slots, owner, prompt(owner, epochs[owner] + 1, 0), ahead=True)
            assert following[owner] not in {None, home[owner]}
            epochs[owner] += 1
            bars[owner] = 1
            home[owner] = take(slots, owner, prompt(owner, epochs[owner], 1))
            assert home[owner] == following[owner]
        else:
            bars[owner] += 1
            number = take(slots, owner, prompt(owner, epochs[owner], bars[owner]))
            assert number == home.setdefault(owner, number)
    assert len(set(home.values())) == len(home)
    assert 6 not in home.values()


def test_no_prefix_is_sent_ahead_at_the_cost_of_a_symbols_latest_prompt() -> None:
    slots = Slots(3)
    held = [take(slots, owner, prompt(owner, 0, 1)) for owner in (0, 1)]
    assert take(slots, 0, prompt(0, 1, 0), ahead=True) is None
    assert [take(slots, owner, prompt(owner, 0, 2)) for owner in (0, 1)] == held


def test_with_more_symbols_than_slots_the_one_unused_for_longest_gives_way_and_no_busy_one_before_an_idle_one() -> None:
    slots = Slots(3)
    busy = slots.take("S0", prompt(0, 0, 1))
    idle = take(slots, 1, prompt(1, 0, 1))
    assert take(slots, 2, prompt(2, 0, 1)) == idle
    assert busy is not None
    slots.release(busy)
    assert take(slots, 3, prompt(3, 0, 1)) == busy


def test_a_prompt_of_nobodys_has_the_last_slot() -> None:
    slots = Slots(3)
    for owner in range(5):
        assert take(slots, owner, prompt(owner, 0, 1)) != 2
    assert slots.take("", np.arange(8, dtype=np.int32)) == 2
    assert Slots(1).take("", np.arange(8, dtype=np.int32)) == 0


def test_a_server_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one slot, not 0"):
        Slots(0)
