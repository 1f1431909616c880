"""Hooks of the user's own: what they see and may return, and that none of them ends a worker."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas import Outcome
from services.core.calendar import SessionCalendar
from services.fusion.prompt.version import prompt_version
from services.fusion.state.book import Book
from services.fusion.state.view import view_of
from services.strategy import hooks as hooks_module
from services.strategy.folder import StrategyError, shipped
from services.strategy.hooks import BarView, BookView, HookError, Hooks
from services.strategy.model import Strategy
from services.strategy_check.purity import hook_errors
from tests.unit.fusion import build
from tests.unit.fusion.build import SYMBOL, bar, instrument
from tests.unit.fusion.desk import BUY, EXIT, Desk, ScriptedEngine
from tests.unit.strategy.own_hooks import register

FACT: dict[str, Any] = {"names": ["twice"], "unit": "price", "meaning": "twice the close"}
SOURCE = """
def twice(view):
    return {"twice": 2 * float(view.bars[view.interval].close[-1])}

def broken(view, action=None):
    return 1 / 0

def high(view):
    return "above_110" if view.bars[view.interval].close[-1] > 110 else None

def never(view, action):
    return f"no {action} today"
"""


@pytest.fixture(autouse=True)
def _forget_entry_points() -> Iterator[None]:
    yield
    hooks_module._entries.cache_clear()


def view(*closes: float) -> BookView:
    prices = np.array(closes or (100.0, 101.0))
    bars = BarView(np.arange(len(prices)), prices, prices + 1, prices - 1, prices, prices)
    return BookView(SYMBOL, "1m", {"1m": bars}, {"atr": 1.0})


def with_hooks(**names: list[str]) -> Strategy:
    facts = [*shipped().model_dump()["facts"], FACT]
    return shipped().model_copy(update={"name": "own", "facts": facts, "hooks": names})


def endless(view: BookView) -> dict[str, float]:
    del view
    while True:
        try:
            math.factorial(50)
        except Exception:  # noqa: BLE001, S112 - what a user may write
            continue


def _raise(error: BaseException) -> dict[str, float]:
    raise error


@pytest.mark.parametrize(
    ("hook", "told"),
    [
        (lambda _: 1 / 0, "raised ZeroDivisionError"),
        (lambda _: {"x": float("nan")}, "x = nan; expected a finite number"),
        (lambda _: {"x": "1"}, "x = '1'"),
        (lambda _: {"atr": 1.0}, "a fact named 'atr'"),
        (lambda _: {"Two Words": 1.0}, "'Two Words'"),
        (lambda _: 3, "raised TypeError"),
        (endless, "was interrupted after 50 ms"),
        (lambda _: sys.exit(3), "raised SystemExit: 3"),
        (lambda _: _raise(asyncio.CancelledError("no")), "raised CancelledError: no"),
    ],
)
def test_a_hook_that_goes_wrong_is_told_of_by_name(hook: Callable[[BookView], Any], told: str) -> None:
    with pytest.raises(HookError, match="the hook own") as caught:
        Hooks(facts={"own": hook}).facts(view())
    assert told in str(caught.value)


def test_reasons_are_checked_and_bounded() -> None:
    counter = iter(range(100))
    hooks = Hooks(triggers={"own": lambda _: f"reason_{next(counter)}"})
    for _ in range(16):
        hooks.reason_to_ask(view())
    with pytest.raises(HookError, match="after 16 others"):
        hooks.reason_to_ask(view())
    with pytest.raises(HookError, match="'Buy now!'"):
        Hooks(triggers={"own": lambda _: "Buy now!"}).reason_to_ask(view())
    assert Hooks(guards={"own": lambda *_: "not\ntoday"}).reason_to_block(view(), "buy") == "own: not today"
    assert Hooks().reason_to_block(view(), "buy") is None


def test_what_hooks_see_is_a_copy_and_no_more_than_a_rebuilt_book_holds() -> None:
    book = Book(instrument(), build.settings().fusion, SessionCalendar.of("24x7"))
    for slot in range(200):
        book.fold_market(bar(slot, 100.0 + slot % 5))
    seen = view_of(book, "1m")
    assert len(seen.bars["1m"].close) == book.bars["1m"].keep
    seen.bars["1m"].close[:] = 0
    assert book.bars["1m"].close[-1] == 104.0
    book.fold_market(bar(200))


def test_hooks_that_remember_or_draw_are_found_impure_and_pure_ones_are_not() -> None:
    calls: list[int] = []

    def remembers(_: BookView) -> dict[str, float]:
        calls.append(1)
        return {"calls": float(len(calls))}

    moments = view(*range(100, 120))
    assert list(hook_errors(Hooks(facts={"own": lambda one: {"last": float(one.bars["1m"].close[-1])}}), moments)) == []
    (error,) = hook_errors(Hooks(facts={"own": remembers}), moments)
    assert error.startswith("hooks.facts: the same bars gave {'calls': 1.0} first")
    (raised,) = hook_errors(Hooks(guards={"own": lambda *_: 1 / 0}), moments)  # type: ignore[dict-item]
    assert "raised ZeroDivisionError" in raised


def test_a_hook_that_is_not_installed_is_named_with_those_that_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(tmp_path, monkeypatch, "import nothing_there", {"twice": "facts"})
    with pytest.raises(StrategyError, match=r"'absent'.*aquiline\.facts.*registered: twice"):
        Hooks.of(with_hooks(facts=["absent"]))
    with pytest.raises(StrategyError, match="'twice' cannot be imported: ModuleNotFoundError"):
        Hooks.of(with_hooks(facts=["twice"]))


def test_a_hook_that_two_packages_register_is_refused_with_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("one", "two"):
        (tmp_path / package).mkdir()
        register(tmp_path / package, monkeypatch, SOURCE, {"twice": "facts"}, package=package)
    with pytest.raises(StrategyError, match=r"hooks\.facts: 'twice' is registered by one 1\.0 \(.*\) and two 1\.0 \(.*\); uninstall"):
        Hooks.of(with_hooks(facts=["twice"]))


def test_another_version_of_a_hooks_package_is_another_prompt_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = with_hooks(facts=["twice"])
    versions = [prompt_version(own)]
    for version in ("1.0", "1.1"):
        folder = tmp_path / version
        folder.mkdir()
        register(folder, monkeypatch, SOURCE, {"twice": "facts"}, version)
        versions.append(prompt_version(own))
    assert len(set(versions)) == 3


async def desk_with(engine: ScriptedEngine, own: Strategy, **fusion: Any) -> Desk:
    desk = await Desk.open(engine, None, start_from="latest", strategy=own, **fusion)
    await desk.history()
    return desk


async def test_facts_of_a_hook_are_in_the_prompt_and_a_failure_fails_the_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(tmp_path, monkeypatch, SOURCE, {"twice": "facts", "broken": "facts"})
    engine = ScriptedEngine([BUY])
    desk = await desk_with(engine, with_hooks(facts=["twice"]))
    async with desk.running():
        await desk.bars(bar(5, 101.0))
        (audit,) = await desk.concluded(1)
    assert audit.outcome is Outcome.PUBLISHED
    assert "twice=202.00" in engine.requests[-1].text()[1]
    desk = await desk_with(ScriptedEngine([BUY]), with_hooks(facts=["broken"]))
    async with desk.running():
        await desk.bars(bar(5, 101.0), bar(6, 102.0))
        audits = await desk.concluded(2)
    assert {(one.outcome, one.reason) for one in audits if one.outcome is not Outcome.CONFLATED} == {(Outcome.FAILED, "hook_failed")}
    assert any("the hook broken raised ZeroDivisionError" in one.detail for one in audits)


async def test_a_trigger_hook_decides_when_the_model_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(tmp_path, monkeypatch, SOURCE, {"high": "triggers", "broken": "triggers"})
    desk = await desk_with(ScriptedEngine([BUY]), with_hooks(triggers=["high"]), trigger_on_closed_bar=False)
    async with desk.running():
        await desk.bars(bar(5, 101.0), bar(6, 111.0), bar(7, 102.0))
        (audit,) = await desk.concluded(1)
    assert (audit.trigger_kind, audit.trigger.offset) == ("above_110", 6)
    desk = await desk_with(ScriptedEngine([BUY]), with_hooks(triggers=["broken"]), trigger_on_closed_bar=False, trigger_on_move_atr=0.1)
    async with desk.running():
        await desk.bars(bar(5, 101.0), bar(6, 111.0))
        assert await desk.audit() == []


async def test_a_guard_hook_blocks_entries_and_never_an_exit_and_its_failure_blocks_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(tmp_path, monkeypatch, SOURCE, {"never": "guards", "broken": "guards"})
    ends = []
    for name, answer in (("never", BUY), ("broken", BUY), ("never", EXIT)):
        desk = await desk_with(ScriptedEngine([answer]), with_hooks(guards=[name]))
        async with desk.running():
            await desk.bars(bar(5, 101.0))
            (audit,) = await desk.concluded(1)
        ends.append((audit.outcome, audit.reason))
    assert ends == [(Outcome.BLOCKED, "own_guard"), (Outcome.BLOCKED, "hook_failed"), (Outcome.PUBLISHED, None)]
