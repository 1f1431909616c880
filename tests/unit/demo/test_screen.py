"""What the demo shows on a terminal, above a panel of figures, and without one."""

from __future__ import annotations

import asyncio
import io
import sys

import pytest
from rich.console import Console

from schemas import Outcome
from services.demo.screen import Screen
from services.pipeline.outputs import Outputs
from tests.unit.demo.build import bars, result
from tests.unit.pipeline.build import audit, signal


def _console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=terminal, width=160, color_system=None), file


@pytest.mark.parametrize("terminal", [True, False])
async def test_a_signal_is_a_line_and_of_other_ends_the_first_of_a_kind_is(*, terminal: bool) -> None:
    console, file = _console(terminal=terminal)
    published, conflated, again = audit(), *(audit(Outcome.CONFLATED, reason="newer_trigger") for _ in range(2))
    with Screen(console) as screen:
        found = result(Outputs(lambda *ended: screen.ended(found, *ended)))
        screen.begin_act(found, "Act 1 of 1", ["a note"])
        screen.begin("paced", "Paced", 2)
        screen.bar_played(bars("A.XNYS", 1)[0])
        for message in (published, conflated, again, signal(published.signal_id)):
            found.outputs.add(message)
        drawing = asyncio.create_task(screen.draw())
        await asyncio.sleep(0)
        drawing.cancel()
    said = file.getvalue()
    assert "BUY AAPL.XNAS up to" in said
    assert said.count("conflated (newer_trigger)") == 1
    assert ("published 1" in said) is terminal
    assert ("1/2 bars" in said) is terminal


@pytest.mark.parametrize("shared", [True, False])
def test_standard_error_goes_above_the_panel_only_where_it_is_a_terminal(monkeypatch: pytest.MonkeyPatch, *, shared: bool) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: shared)
    console, file = _console(terminal=True)
    with Screen(console) as screen:
        screen.begin_act(result(), "Act 1 of 1", [])
        sys.stderr.write("a log line\n")
    assert ("a log line\n" in file.getvalue()) is shared


async def test_what_a_narrow_terminal_folds_is_indented_below_its_first_line() -> None:
    file = io.StringIO()
    with Screen(Console(file=file, force_terminal=True, width=60, color_system=None)) as screen:
        found = result(Outputs(lambda *ended: screen.ended(found, *ended)))
        screen.begin_act(found, "Act 1 of 1", [])
        message = audit()
        for one in (message, signal(message.signal_id)):
            found.outputs.add(one)
    lines = file.getvalue().splitlines()
    first = next(at for at, line in enumerate(lines) if "BUY AAPL.XNAS" in line)
    assert lines[first + 1].startswith("  ")


def test_before_the_first_act_there_is_a_panel_without_figures() -> None:
    console, file = _console(terminal=True)
    with Screen(console):
        pass
    assert "setting up" in file.getvalue()
    assert "outcomes" not in file.getvalue()
