"""The demo's face: sentences that scroll by above a panel with the banner and the figures; without a terminal, plain lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Self

from rich.box import HEAVY
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from schemas import AuditRecord, Outcome, Signal
from services.core.metrics import REGISTRY
from services.demo.loglines import LogLines
from services.demo.script import Phase
from services.demo.sums import Sum
from services.demo.tally import STAGES, Tally, hit_ratio, percentile, total_ms
from services.demo.words import action_style, day_of, ending_sentence, signal_sentence
from services.fusion.prompt.prewarm import WarmCount

BANNER_STYLE: Final = "bold black on yellow"
_OUTCOME_STYLES: Final = {
    Outcome.PUBLISHED: "green",
    Outcome.CONFLATED: "blue",
    Outcome.STALE: "yellow",
    Outcome.BLOCKED: "magenta",
    Outcome.FAILED: "red",
}
_LANE_STATES: Final = ("waiting", "queued", "running", "follow_up")
_WIDTH_WITHOUT_TERMINAL: Final = 200


class Screen:
    """Shows a run as it goes. Use as a context manager; `refresh` draws the panel anew."""

    def __init__(self, console: Console, banner: str, log_lines: LogLines) -> None:
        """Write to `console`, under `banner`; `log_lines` share the terminal."""
        self._console = console
        self._live: Live | None = None
        self.banner = banner
        self.log_lines = log_lines
        self.phase = "setting up"
        self.done = 0
        self.total = 0
        self.day_ms: int | None = None
        self.tally: Tally | None = None
        self.warm: Callable[[], WarmCount] = WarmCount
        self._told: Counter[tuple[str, Outcome, str | None]] = Counter()

    def __enter__(self) -> Self:
        self.line(Text(f" {self.banner} ", BANNER_STYLE))
        if self._console.is_terminal:
            # Drawn when asked to: a thread of its own would draw in the midst of what is measured.
            self._live = Live(self._panel(), console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(self._panel(), refresh=True)
            self._live.stop()
            self._live = None

    def refresh(self) -> None:
        """Draw the panel anew."""
        if self._live is not None:
            self._live.update(self._panel(), refresh=True)

    def line(self, text: RenderableType) -> None:
        """Write a line above the panel."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=not self._console.is_terminal)

    def begin(self, phase: str, title: str, total: int) -> None:
        """Begin a part of the run with `total` bars to go."""
        self.phase, self.done, self.total = phase, 0, total
        # Without a panel the banner would be read once and forgotten.
        mark = "" if self._console.is_terminal else f"{self.banner.partition(':')[0]} "
        self.line(Text(f"── {mark}{title}", "bold"))
        self.refresh()

    def note(self, text: str) -> None:
        """Say something that is no signal."""
        self.line(Text(f"   {text}", "dim"))

    def ended(self, audit: AuditRecord, signal: Signal | None, phase: Phase) -> None:
        """Tell of a trigger's end: every signal, and of each other kind of end the first in a phase; the panel counts the rest."""
        day = f"{day_of(audit.trigger.ts_event_ms)} "
        if signal is not None and audit.outcome is Outcome.PUBLISHED:
            sentence = signal_sentence(signal, audit)
            action, _, rest = sentence.partition(" ")
            self.line(Text.assemble((day, "dim"), (action, action_style(signal.action)), f" {rest}"))
            return
        kind = (phase.value, audit.outcome, audit.reason)
        self._told[kind] += 1
        if self._told[kind] == 1:
            said = f"{audit.symbol} {ending_sentence(audit)} (more of these are only counted)"
            self.line(Text.assemble((day, "dim"), (said, _OUTCOME_STYLES[audit.outcome])))

    def _panel(self) -> RenderableType:
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="bold", no_wrap=True)
        rows.add_column(overflow="fold")
        progress: RenderableType = Text("")
        if self.total:
            day = f"  {day_of(self.day_ms)}" if self.day_ms is not None else ""
            bar = Table.grid(padding=(0, 1))
            bar.add_row(ProgressBar(self.total, self.done, width=40), Text(f"{self.done}/{self.total} bars{day}"))
            progress = bar
        rows.add_row(Text(self.phase, "bold yellow"), progress)
        if self.tally is not None:
            for name, figures in figure_rows(self.tally, self.warm()):
                # The gauge is kept by the worker, and stands still once that has ended.
                if name != "lanes" or self.phase != "done":
                    rows.add_row(name, figures)
        return Panel(Group(Text(f" {self.banner} ", BANNER_STYLE), rows), box=HEAVY, border_style="yellow", padding=(0, 1))


def figure_rows(tally: Tally, warm: WarmCount) -> list[tuple[str, Text]]:
    """Return the panel's rows of figures."""
    outcomes = Text("  ").join(Text(f"{outcome.value} {tally.outcomes[outcome]}", _OUTCOME_STYLES[outcome]) for outcome in Outcome)
    lanes = "  ".join(f"{state.replace('_', '-')} {_gauge(state):.0f}" for state in _LANE_STATES)
    published = tally.published()
    every_call = hit_ratio(tally.calls(), warm.prompt_tokens, warm.cached_tokens)
    hits = f"behind signals {_percent(hit_ratio(published))}  all calls {_percent(every_call)}"
    vision = Counter(audit.vision for audit in published)
    charts = "  ".join(f"{state} {vision[state]}" for state in ("fresh", "stale", "absent") if vision[state])
    return [
        ("outcomes", outcomes),
        ("lanes", Text(lanes)),
        ("ms p50/p95", Text(_stages(published))),
        ("prefix hits", Text(hits)),
        ("charts", Text(charts or "-")),
    ]


def closing_table(sums: Sequence[Sum]) -> Table:
    """Return the closing sums, each with OK or what is off."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    for one in sums:
        table.add_row(Text("OK", "bold green") if one.ok else Text("OFF", "bold red"), one.what, Text(one.said, "dim"))
    return table


def make_console() -> Console:
    """Return standard output's console; lines are not folded where nobody looks at them on a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_WITHOUT_TERMINAL)


def _stages(published: Sequence[AuditRecord]) -> str:
    if not published:
        return "-"
    columns = {"total": [total_ms(audit) for audit in published]}
    columns.update({stage: [audit.latency_ms.get(stage, 0.0) for audit in published] for stage in STAGES})
    return "  ".join(f"{stage.replace('_', ' ')} {percentile(ms, 50):.0f}/{percentile(ms, 95):.0f}" for stage, ms in columns.items())


def _gauge(state: str) -> float:
    return REGISTRY.get_sample_value("aquiline_lanes", {"state": state}) or 0.0


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1%}"
