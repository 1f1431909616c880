"""A function of a user's own answers for what it computes, and for nothing else."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest

from services.strategy.user_code import UserCodeError, run_user_code


@pytest.fixture
def passes() -> Iterator[list[str]]:
    """Return the passes of a garbage collector that begins one after every tenth object."""
    begun: list[str] = []

    def note(phase: str, info: dict[str, int]) -> None:
        del info
        begun.append(phase)

    thresholds = gc.get_threshold()
    gc.callbacks.append(note)
    gc.set_threshold(10, 1, 1)
    yield begun
    gc.set_threshold(*thresholds)
    gc.callbacks.remove(note)


def _allocates() -> int:
    return len([[] for _ in range(10_000)])


def test_no_pass_over_all_objects_counts_as_the_functions_computing(passes: list[str]) -> None:
    begun: list[int] = []

    def function() -> int:
        begun.append(len(passes))
        made = _allocates()
        begun.append(len(passes))
        return made

    assert run_user_code(function) == 10_000
    assert begun[0] == begun[1]
    before = len(passes)
    _allocates()
    assert len(passes) > before, "it collects again"


def _raises() -> None:
    raise ValueError("no")


def _computes() -> None:
    while True:
        pass


@pytest.mark.parametrize("function", [_raises, _computes])
def test_after_a_function_that_fails_garbage_is_collected_again(function: Callable[[], None]) -> None:
    with pytest.raises(UserCodeError):
        run_user_code(function)
    assert gc.isenabled()
