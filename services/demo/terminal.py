"""What the demo shows: a line for each signal above a panel of figures; plain lines when the output is no terminal."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Final, Self

from rich.box import HEAVY
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from schemas import LATENCY_STAGES, Action, AuditRecord, Candle, Outcome
from services.core.metrics import REGISTRY
from services.demo.checks import Check
from services.demo.log_output import LogOutput
from services.demo.plan import day_of
from services.demo.results import Results, hit_ratio, percentile, total_ms
from services.demo.sentences import ending_sentence, signal_sentence
from services.fusion.prompt.prewarm import WarmCount

BANNER_STYLE: Final = "bold black on yellow"
_ACTION_STYLES: Final = {Action.BUY: "green", Action.SELL: "red", Action.EXIT: "yellow", Action.HOLD: "cyan", Action.ABSTAIN: "magenta"}
_OUTCOME_STYLES: Final = {
    Outcome.PUBLISHED: "green",
    Outcome.CONFLATED: "blue",
    Outcome.STALE: "yellow",
    Outcome.BLOCKED: "magenta",
    Outcome.FAILED: "red",
}
_LANE_STATES: Final = ("waiting", "queued", "running", "follow_up")
_DRAW_S: Final = 0.25
_PLAIN_WIDTH: Final = 200


class Screen:
    """Shows a run. A context manager; `drawing` keeps the panel up to date."""

    def __init__(self, console: Console, log_output: LogOutput) -> None:
        """Write to `console`; `log_output` shares the terminal."""
        self._console = console
        self._live: Live | None = None
        self._banner = ""
        self.log_output = log_output
        self.phase = "setting up"
        self.done = 0
        self.total = 0
        self.day_ms: int | None = None
        self.results: Results | None = None
        self.warm = WarmCount()
        self._shown: set[tuple[str, Outcome, str | None]] = set()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            # No refresh thread: it would draw while latencies are measured.
            self._live = Live(self._panel(), console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._refresh()
            self._live.stop()
            self._live = None

    @contextlib.asynccontextmanager
    async def drawing(self) -> AsyncIterator[None]:
        """Draw the panel four times a second while the context lasts."""

        async def draw() -> None:
            while True:
                self._refresh()
                await asyncio.sleep(_DRAW_S)

        task = asyncio.create_task(draw(), name="draw")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def line(self, text: RenderableType) -> None:
        """Write a line above the panel."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=not self._console.is_terminal)

    def begin_act(self, heading: str, banner: str) -> None:
        """Begin an act under its own banner."""
        self._banner, self.results, self.day_ms, self.total = banner, None, None, 0
        self._shown.clear()
        self.line(Text(f"══ {heading}", "bold"))
        self.line(Text(f" {banner} ", BANNER_STYLE))

    def bar_played(self, candle: Candle) -> None:
        """Count a bar of the phase."""
        self.done += 1
        self.day_ms = candle.ts_close_ms

    def begin(self, phase: str, title: str, total: int) -> None:
        """Begin a phase of `total` bars."""
        self.phase, self.done, self.total = phase, 0, total
        # Without a panel the banner scrolls away, so each heading repeats its first words.
        mark = "" if self._console.is_terminal else f"{self._banner.partition(':')[0]} "
        self.line(Text(f"── {mark}{title}", "bold"))
        self._refresh()

    def note(self, text: str) -> None:
        """Write a remark about the run."""
        self.line(Text(f"   {text}", "dim"))

    def ended(self, audit: AuditRecord) -> None:
        """Show the end of a trigger: every signal, and the first of each other kind in a phase; the panel counts the rest."""
        assert self.results is not None  # noqa: S101 - set before the worker starts
        day = f"{day_of(audit.trigger.ts_event_ms)} "
        signal = self.results.signal_of(audit)
        if signal is not None and audit.outcome is Outcome.PUBLISHED:
            action, _, rest = signal_sentence(signal, audit).partition(" ")
            self.line(Text.assemble((day, "dim"), (action, f"bold {_ACTION_STYLES[signal.action]}"), f" {rest}"))
            return
        kind = (self.results.phase_of(audit).value, audit.outcome, audit.reason)
        if kind not in self._shown:
            self._shown.add(kind)
            sentence = f"{audit.symbol} {ending_sentence(audit)} (further ones are only counted)"
            self.line(Text.assemble((day, "dim"), (sentence, _OUTCOME_STYLES[audit.outcome])))

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._panel(), refresh=True)

    def _panel(self) -> RenderableType:
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="bold", no_wrap=True)
        rows.add_column(overflow="fold")
        progress = Table.grid(padding=(0, 1))
        if self.total:
            day = f"  {day_of(self.day_ms)}" if self.day_ms is not None else ""
            progress.add_row(ProgressBar(self.total, self.done, width=40), Text(f"{self.done}/{self.total} bars{day}"))
        rows.add_row(Text(self.phase, "bold yellow"), progress)
        if self.results is not None:
            for name, figures in _figures(self.results, self.warm):
                # The worker sets the gauge, which keeps its last value when the worker has ended.
                if name != "lanes" or self.phase != "done":
                    rows.add_row(name, figures)
        return Panel(Group(Text(f" {self._banner} ", BANNER_STYLE), rows), box=HEAVY, border_style="yellow", padding=(0, 1))


def checks_table(checks: Sequence[Check]) -> Table:
    """Return the closing checks, each with OK or WRONG."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    for one in checks:
        table.add_row(Text("OK", "bold green") if one.ok else Text("WRONG", "bold red"), one.what, Text(one.said, "dim"))
    return table


def make_console() -> Console:
    """Return the console of standard output; without a terminal its lines are not folded."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def _figures(results: Results, warm: WarmCount) -> list[tuple[str, Text]]:
    published = results.published()
    vision = Counter(audit.vision for audit in published)
    all_calls = hit_ratio(results.calls(), warm.prompt_tokens, warm.cached_tokens)
    lanes = ((state, REGISTRY.get_sample_value("aquiline_lanes", {"state": state}) or 0) for state in _LANE_STATES)
    return [
        ("outcomes", Text("  ").join(Text(f"{one.value} {results.outcomes[one]}", _OUTCOME_STYLES[one]) for one in Outcome)),
        ("lanes", Text("  ".join(f"{state.replace('_', '-')} {count:.0f}" for state, count in lanes))),
        ("ms p50/p95", Text(_stages(published))),
        ("prefix hits", Text(f"behind signals {_percent(hit_ratio(published))}  all calls {_percent(all_calls)}")),
        ("charts", Text("  ".join(f"{state} {vision[state]}" for state in ("fresh", "stale", "absent") if vision[state]) or "-")),
    ]


def _stages(published: Sequence[AuditRecord]) -> str:
    if not published:
        return "-"
    columns = {"total": [total_ms(audit) for audit in published]}
    columns |= {stage.replace("_", " "): [audit.latency_ms.get(stage, 0.0) for audit in published] for stage in LATENCY_STAGES}
    return "  ".join(f"{stage} {percentile(ms, 50):.0f}/{percentile(ms, 95):.0f}" for stage, ms in columns.items())


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1%}"
