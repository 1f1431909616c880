"""PROMPT_VERSION follows what prompts say, and whole prompts are as their golden files have them."""

from __future__ import annotations

import pytest

from services.fusion.prompt import facts, layout, lines, version, wording
from services.fusion.prompt.chat import TEMPLATES, ChatTemplate
from services.fusion.prompt.version import PROMPT_VERSION, prompt_version
from tests.unit.fusion.prompt.golden import CASES, path_of


@pytest.mark.parametrize("case", CASES)
def test_a_whole_prompt_is_as_its_golden_file_has_it(case: str) -> None:
    golden = path_of(case).read_text(encoding="utf-8")
    assert CASES[case]() == golden, "the prompt has changed: review it, then run python -m tests.unit.fusion.prompt.golden"


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (wording, "RULES", wording.RULES.replace("systematic", "careful")),
        (wording, "QUESTION", "And now?\n"),
        (wording, "REPAIR", "Once more.\n"),
        (lines, "GAP_LINE", "-- none\n"),
        (lines, "PARTIAL", "open "),
        (wording, "bars_heading", lambda interval: f"Bars of {interval}:\n"),
        (wording, "vision_line", lambda vision, interval: f"Chart of {interval}: {vision.state}.\n"),
        (lines, "compact", lambda value: f"{value:.0f}"),
        (layout, "fact_text", lambda fact, number, decimals: f"{fact}:{number:.{decimals}f}"),
        (version, "PAGE_BARS", 8),
        (version, "TEMPLATES", {**TEMPLATES, "none": ChatTemplate((), ("\n\n",), (), (), ())}),
    ],
)
def test_the_version_changes_with_anything_that_a_prompt_says(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, value: object
) -> None:
    assert prompt_version() == PROMPT_VERSION
    monkeypatch.setattr(module, name, value)
    assert prompt_version() != PROMPT_VERSION


def test_the_specimen_shows_every_fact() -> None:
    shown = CASES["specimen"]()
    assert [name for name in (*facts.FACTS, "close", "p_up") if f"{name}=" not in shown] == []
