"""The prompt version follows what prompts say, and whole prompts are as their golden files have them."""

from __future__ import annotations

import pytest

from schemas import Pattern, Skill
from services.core.calendar import SessionCalendar
from services.fusion.prompt import facts, layout, lines, rules, short_tail, version, wording
from services.fusion.prompt.chat import TEMPLATES, ChatTemplate
from services.fusion.prompt.version import prompt_version, version_of
from services.fusion.state.book import Book
from services.strategy.folder import shipped
from tests.unit.fusion.build import MINUTE, START, bar, instrument, seen, settings
from tests.unit.fusion.prompt.golden import CASES, path_of


@pytest.mark.parametrize("case", CASES)
def test_a_whole_prompt_is_as_its_golden_file_has_it(case: str) -> None:
    golden = path_of(case).read_text(encoding="utf-8")
    assert CASES[case]() == golden, "the prompt has changed: review it, then run python -m tests.unit.fusion.prompt.golden"


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (wording, "CONTRACT", {"line": wording.CONTRACT["line"].replace("one space", "a space"), "json": wording.CONTRACT["json"]}),
        (wording, "CONTRACT", {"line": wording.CONTRACT["line"], "json": wording.CONTRACT["json"].replace("JSON object", "object")}),
        (rules, "_TIME", "Time is that of the bar's end.\n"),
        (rules, "_CHART_READER", "The chart reader looks at a chart.\n"),
        (wording, "QUESTION", {"line": "And now?\n", "json": "And now?\n"}),
        (wording, "EXPLAINED_QUESTION", {"line": "And now, and why?\n", "json": "And now, and why?\n"}),
        (wording, "RATIONALE_QUESTION", "Why?\n"),
        (wording, "REPAIR", {"line": "Once more.\n", "json": "Once more.\n"}),
        (wording, "FLASH_QUESTION", "One of {labels}?\n"),
        (wording, "SHORT_LEGEND", "Less is said: {facts}and so on.\n"),
        (short_tail, "short_facts", lambda _: ["atr"]),
        (short_tail, "_now", lambda _, *, daily: f"{daily}\n"),
        (wording, "BREAK_ROW", "-- pause\n"),
        (wording, "day_row", lambda day: f"-- {day}\n"),
        (wording, "until", lambda clock: f" to {clock}"),
        (wording, "GAP_ROW", "-- none\n"),
        (wording, "PARTIAL", "open "),
        (wording, "bars_heading", lambda interval, digits, **_: f"Bars of {interval}, {digits}:\n"),
        (wording, "vision_row", lambda vision, interval, p_up: f"Chart of {interval}: {vision.state} {p_up}.\n"),
        (lines, "compact", lambda value: f"{value:.0f}"),
        (layout, "fact_texts", lambda values, _, decimals, digits: [f"{decimals} {digits}", *values]),
        (version, "PAGE_BARS", 8),
        (version, "TEMPLATES", {**TEMPLATES, "none": ChatTemplate((), ("\n\n",), (), (), ())}),
    ],
)
def test_the_version_changes_with_anything_that_a_prompt_says(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, value: object
) -> None:
    assert prompt_version(shipped()) == version_of(shipped())
    monkeypatch.setattr(module, name, value)
    assert prompt_version(shipped()) != version_of(shipped())


@pytest.mark.parametrize(
    ("skill", "shown"),
    [
        (None, False),
        (Skill(auc=0.4911, auc_low=0.4691, auc_high=0.5158), False),
        (Skill(auc=0.55, auc_low=0.5, auc_high=0.6), False),
        (Skill(auc=0.45, auc_low=0.42, auc_high=0.48), False),
        (Skill(auc=0.55, auc_low=0.501, auc_high=0.6), True),
    ],
)
def test_p_up_is_shown_only_of_a_model_that_beats_chance(skill: Skill | None, *, shown: bool) -> None:
    book = Book(instrument(), settings().fusion, SessionCalendar.of("24x7"))
    book.fold_market(bar(0))
    book.fold_vision(seen(START + MINUTE, 0.61, skill=skill))
    vision = book.current_vision("1m")
    assert vision.state == "fresh"
    assert ("p_up" in facts.facts(book, "1m", vision)) == shown


def test_of_many_patterns_the_latest_are_shown_and_of_one_bars_the_clearest_first() -> None:
    book = Book(instrument(), settings().fusion, SessionCalendar.of("24x7"))
    book.fold_market(bar(0))
    ends = [
        ("double_top", 9, 1.0),
        ("doji", 19, 0.6),
        ("hammer", 19, 0.9),
        ("doji", 17, 0.7),
        ("double_bottom", 15, 0.5),
        ("doji", 14, 0.99),
    ]
    patterns = [Pattern(label=label, score=score, first_bar=last - 1, last_bar=last) for label, last, score in ends]
    book.fold_vision(seen(START + MINUTE, patterns=patterns))
    line = wording.vision_row(book.current_vision("1m"), "1m", None)
    assert line.endswith(
        "hammer 0.90 on bars 18 to 19, doji 0.60 on bars 18 to 19, doji 0.70 on bars 16 to 17, double_bottom 0.50 on bars 14 to 15.\n"
    )


def test_the_specimen_shows_every_fact() -> None:
    shown = CASES["specimen"]()
    assert [name for name in shipped().fact_of if f"{name}=" not in shown] == []
