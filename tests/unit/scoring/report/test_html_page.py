"""The page: one file that asks nothing of anybody, with all the report says, also when there is nothing to say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from rich.console import Console

from services.scoring.report import Report, ReportInput, build, to_html, to_terminal
from services.scoring.report.report_tables import tables
from tests.unit.scoring.report import market
from tests.unit.scoring.report.market import Plan, outcome

_VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Checks that elements close in order, and keeps what is asserted on."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.scopes: list[str | None] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = dict(attrs)
        self.tags.append(tag)
        if tag not in _VOID:
            self.open.append(tag)
        if of.get("id") is not None:
            self.ids.append(of["id"] or "")
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "action", "data"}]
        if tag == "th":
            self.scopes.append(of.get("scope"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


@pytest.fixture(scope="module")
def report() -> Report:
    return build(market.given(Plan(bars=300, source="simulator")))


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    return to_html(report)


def printed(report: Report, width: int = 120) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as captured:
        to_terminal(report, console)
    return captured.get()


def test_the_page_asks_no_other_place_for_anything(html: str) -> None:
    page = Page(html)
    assert all(link.startswith("#") for link in page.links)
    assert {"script", "link", "img", "iframe"}.isdisjoint(page.tags)
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}


def test_every_id_is_there_once_and_every_reference_has_its_id(html: str) -> None:
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    wanted = {link[1:] for link in page.links} | set(re.findall(r"url\(#([^)]+)\)", html)) | set(re.findall(r'labelledby="([^"]+)"', html))
    assert wanted <= set(page.ids)


def test_pictures_take_their_colours_from_the_page(html: str) -> None:
    svg = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert svg
    assert re.findall(r"#[0-9a-f]{6}", svg) == []


def test_tables_are_accessible(html: str) -> None:
    page = Page(html)
    assert page.tags.count("table") == page.tags.count("caption") > 8
    assert set(page.scopes) == {"row", "col"}


def test_page_and_terminal_say_the_same_words(report: Report, html: str) -> None:
    page, terminal = " ".join(Page(html).text.replace("\xa0", " ").split()), " ".join(re.sub("[│╭╮╰╯─]", "", printed(report)).split())
    for said in (report.banner, report.verdict.sentence, *report.cautions, report.calibration.sentence):
        assert said is not None
        assert said in page
        assert said in terminal


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_terminals_report_fits_its_width_and_cuts_nothing_off(report: Report, width: int) -> None:
    lines = printed(report, width).splitlines()
    assert max(map(len, lines)) <= width
    if width == 40:  # figures are folded over lines, so that only their characters can be counted
        digits = Counter(char for one in tables(report) for row in one.rows for cell in row[1:] for char in cell if char.isdigit())
        assert digits <= Counter(char for line in lines for char in line if char.isdigit())
        return
    for one in tables(report):
        for row in one.rows if one.numbers else ():
            for part in [part for cell in row for part in cell.split(" (")]:
                assert any(part in line for line in lines), part


def test_the_same_report_gives_the_same_page(report: Report, html: str) -> None:
    assert html == to_html(report)


def test_nothing_to_judge_makes_a_whole_page() -> None:
    report = build(ReportInput("Empty", [], {}, 2.0, {}))
    said = Page(to_html(report)).text + printed(report)
    assert "No signal was judged" in said
    assert re.search(r"\b(nan|inf|None)\b", said) is None


def test_one_trade_makes_a_whole_page() -> None:
    report = build(ReportInput("One", [outcome()], {}, 2.0, {}))
    said = Page(to_html(report)).text + printed(report)
    assert re.search(r"\b(nan|inf|None)\b", said) is None


def test_text_from_outside_is_text() -> None:
    """A model's name may hold anything."""
    evil = "<script>alert(1)</script>[red]\x1b[31m\n{{ 7 * 7 }}"
    report = build(ReportInput(evil, [], {}, 2.0, {"Model": evil}))
    page, terminal = to_html(report), printed(report, 200)
    assert "<script" not in page
    assert "{{ 7 * 7 }}" in page
    assert "\x1b" not in page + terminal
    assert "[red]" in terminal


def test_the_pages_template_is_in_the_wheel() -> None:
    shipped = {str(file.distribution_path) for file in WheelBuilder(str(Path(__file__).parents[4])).recurse_included_files()}
    assert "services/scoring/report/page.html.j2" in shipped


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_what_draws_the_page_is_imported_when_a_page_is_asked_for() -> None:
    """And where it is absent the terminal's report works, and the page says what to install."""
    ended = _python(
        "import sys\nsys.modules['jinja2'] = sys.modules['matplotlib'] = None\n"
        "from services.scoring.report import ReportInput, build, to_html, to_terminal\n"
        "from rich.console import Console\n"
        "report = build(ReportInput('t', [], {}, 2.0, {}))\nto_terminal(report, Console())\nto_html(report)"
    )
    assert "nothing to say about skill" in ended.stdout
    assert "needs jinja2, which is not installed; pip install 'aquiline[report]'" in ended.stderr
