"""What the demo shows: a line for each signal above a panel of figures; plain lines when the output is no terminal."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import Final, Self

from rich.box import HEAVY
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from schemas import Action, AuditRecord, Candle, Outcome
from services.core.percentile import percentile
from services.demo.plan import day_of
from services.demo.results import VISION_STATES, Results, hit_ratio
from services.demo.sentences import ending_sentence, signal_sentence
from services.fusion.prompt.prewarm import WarmCount

BANNER_STYLE: Final = "bold black on yellow"
_ACTION_STYLES: Final = {Action.BUY: "green", Action.SELL: "red", Action.EXIT: "yellow", Action.HOLD: "cyan", Action.ABSTAIN: "magenta"}
_OUTCOME_STYLES: Final = {"published": "green", "conflated": "blue", "stale": "yellow", "blocked": "magenta", "failed": "red"}
_DRAW_S: Final = 0.25
_PLAIN_WIDTH: Final = 200


class Screen:
    """Shows a run while the context lasts; `draw` keeps the panel up to date."""

    def __init__(self, console: Console) -> None:
        """Write to `console`. Standard error goes above the panel where both are one terminal."""
        self.console = console
        self._banner = ""
        self.phase = "setting up"
        self.done = 0
        self.total = 0
        self.day_ms: int | None = None
        self.results: Results | None = None
        self.warm = WarmCount()
        self._shown: set[tuple[str, Outcome, str | None]] = set()
        # No refresh thread: it would draw while latencies are measured.
        self._live = Live(
            console=console, auto_refresh=False, get_renderable=self._panel, redirect_stdout=False, redirect_stderr=sys.stderr.isatty()
        )

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the panel as it is. Later lines follow it, and none is folded, so that commands can be copied."""
        self._live.stop()

    async def draw(self) -> None:
        """Draw the panel four times a second until cancelled."""
        while self._live.is_started:
            self._live.refresh()
            await asyncio.sleep(_DRAW_S)

    def line(self, text: RenderableType, style: str = "") -> None:
        """Write a line above the panel."""
        shown = Text(text, style) if isinstance(text, str) else text
        self.console.print(shown, highlight=False, soft_wrap=not self._live.is_started)

    def begin_act(self, heading: str, banner: str) -> None:
        """Begin an act under its own banner."""
        self._banner, self.results, self.day_ms, self.total = banner, None, None, 0
        self._shown.clear()
        self.line(f"══ {heading}", "bold")
        self.line(f" {banner} ", BANNER_STYLE)

    def begin(self, phase: str, title: str, total: int) -> None:
        """Begin a phase of `total` bars."""
        self.phase, self.done, self.total = phase, 0, total
        # Without a panel the banner scrolls away, so each heading repeats its first words.
        mark = "" if self.console.is_terminal else f"{self._banner.partition(':')[0]} "
        self.line(f"── {mark}{title}", "bold")

    def bar_played(self, candle: Candle) -> None:
        """Count a bar of the phase."""
        self.done += 1
        self.day_ms = candle.ts_close_ms

    def note(self, text: str) -> None:
        """Write a remark about the run."""
        self.line(f"   {text}", "dim")

    def ended(self, results: Results, audit: AuditRecord) -> None:
        """Show the end of a trigger: every signal, and the first of each other kind in a phase; the panel counts the rest."""
        day = (f"{day_of(audit.trigger.ts_event_ms)} ", "dim")
        signal = None if audit.signal_id is None else results.signals.get(audit.signal_id)
        kind = (results.phase_of(audit).value, audit.outcome, audit.reason)
        if signal is not None and audit.outcome is Outcome.PUBLISHED:
            action, _, rest = signal_sentence(signal, audit).partition(" ")
            self.line(Text.assemble(day, (action, f"bold {_ACTION_STYLES[signal.action]}"), f" {rest}"))
        elif kind not in self._shown:
            self._shown.add(kind)
            sentence = f"{audit.symbol} {ending_sentence(audit)} (further ones are only counted)"
            self.line(Text.assemble(day, (sentence, _OUTCOME_STYLES[audit.outcome])))

    def _panel(self) -> RenderableType:
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="bold", no_wrap=True)
        progress = Table.grid(padding=(0, 1))
        if self.total:
            day = f"  {day_of(self.day_ms)}" if self.day_ms is not None else ""
            progress.add_row(ProgressBar(self.total, self.done, width=40), Text(f"{self.done}/{self.total} bars{day}"))
        rows.add_row(Text(self.phase, "bold yellow"), progress)
        if self.results is not None:
            published, outcomes = self.results.published(), self.results.outcomes()
            ms, vision = [audit.total_ms for audit in published] or [0.0], Counter(audit.vision for audit in published)
            hits = (hit_ratio(published), hit_ratio(self.results.calls(), self.warm))
            behind, all_calls = ("-" if ratio is None else f"{ratio:.1%}" for ratio in hits)
            rows.add_row("outcomes", Text("  ").join(Text(f"{one.value} {outcomes[one]}", _OUTCOME_STYLES[one]) for one in Outcome))
            rows.add_row("total ms", f"median {percentile(ms, 0.5):.0f}  p95 {percentile(ms, 0.95):.0f}")
            rows.add_row("prefix hits", f"behind signals {behind}  all calls {all_calls}")
            rows.add_row("charts", "  ".join(f"{state} {vision[state]}" for state in VISION_STATES if vision[state]))
        return Panel(Group(Text(f" {self._banner} ", BANNER_STYLE), rows), box=HEAVY, border_style="yellow", padding=(0, 1))


def make_console() -> Console:
    """Return the console of standard output; without a terminal its lines are not folded."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)
