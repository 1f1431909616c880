"""What the demo shows: a line for each signal above a panel of figures; plain lines when the output is no terminal."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Final, Self

from rich.box import HEAVY
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from schemas import Action, AuditRecord, Candle, Outcome, Signal
from services.core.percentile import percentile
from services.demo.plan import Phase, day_of
from services.demo.report import FILES, VISION_STATES, ActResult, Report
from services.demo.setup import MODEL_ACT
from services.inference.engine import EngineInfo
from services.pipeline.outputs import calls, hit_ratio, outcomes, published

_NO_ADVICE: Final = "the prices are old. Nothing on this screen is advice."
_DAY_MS: Final = 86_400_000
_BANNER_STYLE: Final = "bold black on yellow"
_ACTION_STYLES: Final = {Action.BUY: "green", Action.SELL: "red", Action.EXIT: "yellow", Action.HOLD: "cyan", Action.ABSTAIN: "magenta"}
_OUTCOME_STYLES: Final = {"published": "green", "conflated": "blue", "stale": "yellow", "blocked": "magenta", "failed": "red"}
_DRAW_S: Final = 0.25
_PLAIN_WIDTH: Final = 200
_INDENT: Final = 4 * " "
"""Before what is folded below its first line."""


class Screen:
    """Shows a run while the context lasts; `draw` keeps the panel up to date."""

    def __init__(self, console: Console | None = None) -> None:
        """Write to `console`, by default standard output's. Standard error goes above the panel where both are one terminal."""
        self.console = console or Console(highlight=False)
        if console is None and not self.console.is_terminal:
            self.console.width = _PLAIN_WIDTH  # no line is folded
        self._banner = ""
        self.phase = "setting up"
        self._done = 0
        self._total = 0
        self._day = ""
        self._result: ActResult | None = None
        self._shown: set[tuple[Phase, Outcome, str | None]] = set()
        # No refresh thread: it would draw while latencies are measured.
        self._live = Live(
            console=self.console, auto_refresh=False, get_renderable=self._panel, redirect_stdout=False, redirect_stderr=sys.stderr.isatty()
        )

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    async def draw(self) -> None:
        """Draw the panel four times a second until cancelled."""
        while self._live.is_started:
            self._live.refresh()
            await asyncio.sleep(_DRAW_S)

    def line(self, text: RenderableType, style: str = "") -> None:
        """Write a line above the panel or, once that has ended, below it and never folded, so that commands can be copied."""
        live = self._live.is_started
        shown = Text(text, style) if isinstance(text, str) else text
        if live and isinstance(shown, Text):
            shown = Text("\n" + _INDENT).join(shown.wrap(self.console, self.console.width - len(_INDENT)))
        self.console.print(shown, highlight=False, soft_wrap=not live)

    def note(self, text: str) -> None:
        """Write a remark about the run."""
        self.line(f"   {text}", "dim")

    def begin_act(self, result: ActResult, act: str, notes: Sequence[str]) -> None:
        """Begin an act under its own banner; `act` says which it is."""
        what, self._banner = opening(result.engine, result.act.name)
        self._result, self._day, self._total = result, "", 0
        self._shown.clear()
        self.line(f"══ {act}: {what}", "bold")
        self.line(f" {self._banner} ", _BANNER_STYLE)
        for note in notes:
            self.note(note)

    def begin(self, phase: str, title: str, total: int) -> None:
        """Begin a phase of `total` bars."""
        self.phase, self._done, self._total = phase, 0, total
        # Without a panel the banner scrolls away, so each heading repeats its first words.
        mark = "" if self.console.is_terminal else f"{self._banner.partition(':')[0]} "
        self.line(f"── {mark}{title}", "bold")

    def listed(self, candle: Candle, min_bars: int) -> None:
        """Say what to expect of a stock whose first bar is `candle`."""
        day = day_of(candle.ts_close_ms)
        self.note(f"{candle.symbol} is listed on {day}: its triggers end `blocked` (min_bars) until it has {min_bars} bars")

    def progress(self, done: int) -> None:
        """Set how many bars of the phase are done."""
        self._done = done

    def bar_played(self, candle: Candle) -> None:
        """Count a bar of the phase."""
        self._done += 1
        self._day = f"  {day_of(candle.ts_close_ms)}"

    def ended(self, result: ActResult, audit: AuditRecord, signal: Signal | None) -> None:
        """Show the end of a trigger: every signal, and the first of each other kind in a phase; the panel counts the rest."""
        day = (f"{day_of(audit.trigger.ts_event_ms)} ", "dim")
        kind = (result.act.plan.phase_at(audit.trigger.ts_event_ms), audit.outcome, audit.reason)
        if signal is not None and audit.outcome is Outcome.PUBLISHED:
            action, _, rest = signal_sentence(signal, audit).partition(" ")
            self.line(Text.assemble(day, (action, f"bold {_ACTION_STYLES[signal.action]}"), f" {rest}"))
            if result.act.name == MODEL_ACT and (why := (audit.answer or "").partition("\n")[2]):
                self.line(f"           why: {why}", "italic")
        elif kind not in self._shown:
            self._shown.add(kind)
            sentence = f"{audit.symbol} {ending_sentence(audit)} (further ones are only counted)"
            self.line(Text.assemble(day, (sentence, _OUTCOME_STYLES[audit.outcome])))

    def close(self, report: Report) -> None:
        """Leave the panel as it is, and write each act's summary and closing checks, the files, and what to try next."""
        self._live.stop()
        for act in report["acts"]:
            self.line(f"══ {summary(act)}", "bold")
            checks = Table(box=None, padding=(0, 1), show_header=False)
            for one in act["sums"]:
                mark = Text("OK", "bold green") if one["ok"] else Text("WRONG", "bold red")
                checks.add_row(mark, one["what"], Text(one["said"], "dim"))
            self.line(checks)
        self.line(f"Files: {', '.join(FILES)}\nTry next:")
        for command, what in next_commands(report["bus"]):
            self.line(Text.assemble("  ", (command, "bold"), (f"   # {what}", "dim")))
        self.line(f" DEMO: {_NO_ADVICE} ", _BANNER_STYLE)

    def _panel(self) -> RenderableType:
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="bold", no_wrap=True)
        progress = Table.grid(padding=(0, 1))
        if self._total:
            progress.add_row(ProgressBar(self._total, self._done, width=40), Text(f"{self._done}/{self._total} bars{self._day}"))
        rows.add_row(Text(self.phase, "bold yellow"), progress)
        if self._result is not None and self._result.setup_s:
            audits = self._result.outputs.audits.values()
            signals, ended = published(audits), outcomes(audits)
            ms, vision = [audit.total_ms for audit in signals] or [0.0], Counter(audit.vision for audit in signals)
            hits = (hit_ratio(signals), hit_ratio(calls(audits), self._result.warm))
            behind, all_calls = ("-" if ratio is None else f"{ratio:.1%}" for ratio in hits)
            rows.add_row("outcomes", Text("  ").join(Text(f"{one.value} {ended[one]}", _OUTCOME_STYLES[one]) for one in Outcome))
            rows.add_row("total ms", f"median {percentile(ms, 0.5):.0f}  p95 {percentile(ms, 0.95):.0f}")
            rows.add_row("prefix hits", f"behind signals {behind}  all calls {all_calls}")
            rows.add_row("charts", "  ".join(f"{state} {vision[state]}" for state in VISION_STATES if vision[state]))
        return Panel(Group(Text(f" {self._banner} ", _BANNER_STYLE), rows), box=HEAVY, border_style="yellow", padding=(0, 1))


def opening(engine: EngineInfo, act: str) -> tuple[str, str]:
    """Return what an act shows, and its banner: who answers, and that it is no advice."""
    what = f"load, burst, outage and recovery, with {engine.model}"
    if act == MODEL_ACT:
        what = f"a real model decides: {engine.model} on this machine's CPU, through llama.cpp"
        who = f"DEMO: {engine.model} answers, a small language model that learned to follow chart setups and has no edge"
    elif engine.source == "llm":
        who = f"DEMO: the model behind {engine.name} answers"
    else:
        who = "SIMULATOR / DEMO: fixed rules answer, no model does"
    return what, f"{who}; {_NO_ADVICE}"


def signal_sentence(signal: Signal, audit: AuditRecord) -> str:
    """Return a published signal as a sentence."""
    valid_s = (signal.valid_until_ms - signal.as_of.market.ts_ms) / 1000
    parts = [f"{_decision(signal)}; valid {valid_s:g} s"]
    if signal.conviction is not None:
        parts.append(f"conviction {signal.conviction:.2f}, {signal.horizon_bars} bars")
    age_ms = signal.vision_age_ms if signal.vision == "stale" else None
    parts.append(f"chart {signal.vision}" + ("" if age_ms is None else f" by {age_ms / _DAY_MS:.0f} d"))
    parts.append(f"{audit.total_ms:.0f} ms")
    if audit.prompt_tokens and audit.cached_tokens is not None:
        parts.append(f"{audit.cached_tokens / audit.prompt_tokens:.0%} cached")
    return ", ".join(parts)


def _decision(signal: Signal) -> str:
    name, money, last = signal.symbol, signal.currency, f"last {signal.ref_price} {signal.currency}"
    match signal.action:
        case Action.EXIT:
            return f"EXIT {name}: close an open position, {last}"
        case Action.HOLD:
            return f"HOLD {name}: change nothing, {last}"
        case Action.ABSTAIN:
            return f"ABSTAIN on {name}: {signal.abstain_reason}, {last}"
        case side:
            limit = "up to" if side is Action.BUY else "down to"
            return f"{side.value.upper()} {name} {limit} {signal.entry} {money}, stop {signal.stop}, target {signal.target}"


def ending_sentence(audit: AuditRecord) -> str:
    """Return why a trigger ended without a signal."""
    why = {
        Outcome.FAILED: "the engine gave no usable answer; no signal is published, and a failure never becomes a hold",
        Outcome.BLOCKED: audit.detail or "a rule of the guard forbids it",
        Outcome.STALE: "too old to act on, so no signal is published",
    }
    return f"{audit.outcome.value} ({audit.reason or ''}): {why.get(audit.outcome, 'a newer bar took its place in the queue')}"


def summary(act: Report) -> str:
    """Return an act in one sentence."""
    published, latency, hits = act["outcomes"]["published"], act["latency_ms"].get("total"), act["prefix_hit_ratio"]
    said = f"{published} signals of {act['engine']['model']} from {act['triggers']} triggers in {act['duration_s']:.0f} s"
    if latency is not None:
        said += f"; paced phase: {latency['p50']:.0f} ms median and {latency['p95']:.0f} ms p95 from record to acknowledged signal"
    if hits is not None:
        said += f"; prefix hits: {hits:.1%} of the tokens behind signals, {act['prefix_hit_ratio_all']:.1%} of all calls"
    return said + "."


def next_commands(bus: str) -> list[tuple[str, str]]:
    """Return commands to try after a run over `bus`, each with what it does."""
    local = "--bus kafka://127.0.0.1:9092 --redis redis://127.0.0.1:6379/0 --engine http://127.0.0.1:30000"
    first = [(f"make up-local && make demo ARGS='{local}'", "the same through a real Kafka and Redis")]
    if bus != "memory://":
        topics = f"AQUILINE_RUN_MODE=demo AQUILINE_BUS__URL={bus} .venv/bin/aquiline topics describe"
        first = [(topics, "list this run's topics, demo.*"), ("make down-local", "stop Kafka, Redis and the simulator")]
    return [
        *first,
        (".venv/bin/aquiline replay --verify demo-audit.jsonl", "rebuild every prompt of this run from its log and check its hash"),
        (".venv/bin/aquiline backtest --report backtest.html", "thirteen years of the same stocks, and what the signals would have earned"),
    ]
