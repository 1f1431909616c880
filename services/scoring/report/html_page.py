"""The report as one HTML file that needs nothing else: style and pictures are in it, and it asks no other place for anything."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

from services.scoring.report import report_tables
from services.scoring.report.charts import pictures
from services.scoring.report.model import Report
from services.scoring.report.optional_packages import need

_TEMPLATE: Final = Path(__file__).with_name("page.html.j2")


def to_html(report: Report) -> str:
    """Return the page; the same report gives the same text. Raises ServiceError without jinja2 or matplotlib (extra `report`)."""
    jinja2 = need("jinja2")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["kept"] = partial(_kept, need("markupsafe"))
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    page: str = template.render(
        report=report,
        tables={one.name: one for one in report_tables.tables(report)},
        tiles=report_tables.tiles(report),
        breakdowns=[report_tables.breakdown(report, part) for part in report.breakdowns],
        pictures=pictures(report),
    )
    return page


def need_page() -> None:
    """Raise ServiceError, naming the extra, where a page cannot be made."""
    for module in ("jinja2", "matplotlib"):
        need(module)


def _kept(markupsafe: Any, text: str) -> Any:
    """Return the text, escaped, with no line break between a number and its per cent sign."""
    return markupsafe.Markup(str(markupsafe.escape(text)).replace(" %", "&nbsp;%"))
