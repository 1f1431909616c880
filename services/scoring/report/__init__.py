"""The report on signals: were they any good? Built from outcomes and bars alone; shown in the terminal or as one HTML page."""

from services.scoring.report.build import build
from services.scoring.report.html_page import to_html
from services.scoring.report.model import Report
from services.scoring.report.report_input import ReportBar, ReportInput
from services.scoring.report.terminal import to_terminal

__all__ = ["Report", "ReportBar", "ReportInput", "build", "to_html", "to_terminal"]
