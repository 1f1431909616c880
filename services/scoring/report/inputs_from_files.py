"""Reads the report's inputs from files with one message a line. Every error names the file, the line and the problem."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError
from rich.progress import Progress

from schemas import (
    Candle,
    CorporateEvent,
    Instrument,
    MarketFeatures,
    Restatement,
    Signal,
    SignalOutcome,
    SymbolChange,
    Topic,
    decode_corporate_event,
    decode_signal_message,
    topic_name,
)
from services.core.errors import ServiceError
from services.core.exported_log import read_log
from services.core.restatement import restating
from services.scoring.report.input_selection import ClosedBars, OutcomeFilter, ReportSources, SelectedOutcomes, SignalFacts, distinct

_STEP: Final = 500
_OF_LOG: Final[dict[Topic, Callable[[bytes], Candle | Instrument | CorporateEvent]]] = {
    Topic.INSTRUMENTS: Instrument.decode,
    Topic.MARKET_FEATURES: MarketFeatures.decode,
    Topic.INSTRUMENT_EVENTS: decode_corporate_event,
}
M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Files:
    """The input files; all but the outcomes are optional."""

    outcomes: Path
    bars: tuple[Path, ...]
    splits: Path | None
    signals: Path | None


def read_files(files: Files, selected: OutcomeFilter, progress: Progress) -> ReportSources:
    """Return the selected inputs; raise ServiceError."""
    outcomes = SelectedOutcomes([one for one in _messages(files.outcomes, SignalOutcome.decode, progress) if selected.accepts(one)])
    signals, changes, market = SignalFacts(), list[Signal](), _Market(outcomes)
    if files.splits is not None:
        market.take(_messages(files.splits, decode_corporate_event, progress))
    for file in files.bars:
        market.take(_log(file, progress) if _is_log(file) else _messages(file, Candle.decode, progress))
    if files.signals is not None:
        for message in _messages(files.signals, decode_signal_message, progress):
            if isinstance(message, Signal) and outcomes.has_signal(message):
                signals.add(message)
            elif isinstance(message, Signal) and outcomes.needs_change(message):
                changes.append(message)
    named = [files.outcomes, *files.bars, *(file for file in (files.splits, files.signals) if file is not None)]
    facts = {"Read from": ", ".join(file.name for file in named), **signals.facts(distinct(outcomes.all))}
    bars = market.bars.by_symbol()
    notes = [] if outcomes.all else [f"{files.outcomes} holds no outcome of these symbols and this time"]
    if outcomes.all and not bars:
        notes.append("--bars holds no closed bar of the outcomes' symbols, intervals and time; the report has no baselines")
    return ReportSources(outcomes.all, bars, restating(market.events, market.instruments), changes, facts, notes)


class _Market:
    """The bars that the report needs, the instruments, and the corporate events."""

    def __init__(self, outcomes: SelectedOutcomes) -> None:
        self._outcomes = outcomes
        self.bars = ClosedBars()
        self.instruments: dict[str, Instrument] = {}
        self.events: list[Restatement] = []

    def take(self, messages: Iterable[Candle | Instrument | CorporateEvent]) -> None:
        for message in messages:
            if isinstance(message, Instrument):
                self.instruments[message.symbol] = message
            elif not isinstance(message, Candle | SymbolChange):
                self.events.append(message)
            elif isinstance(message, Candle) and self._outcomes.needs_bar(message):
                self.bars.add(message)


def _is_log(file: Path) -> bool:
    """Return whether the file is an exported log."""
    first = next(_lines(file), (1, b""))[1]
    return first.startswith(b'{"aquiline_log"')


def _log(file: Path, progress: Progress) -> Iterator[Candle | Instrument | CorporateEvent]:
    """Yield the bars, instruments and corporate events of an exported log."""
    task = progress.add_task(file.name, total=None)
    header, lines = read_log(file)
    wanted = {topic_name(topic, header.settings.run_mode): decode for topic, decode in _OF_LOG.items()}
    for line in lines:
        if line.record is None or line.problem is not None:
            raise ServiceError(f"{file}, line {line.number}: {line.problem}")
        if (decode := wanted.get(line.record.topic)) is not None and line.record.value is not None:
            yield _decoded(file, line.number, line.record.value, decode)
        if line.number % _STEP == 0:
            progress.update(task, completed=line.number)


def _messages(file: Path, decode: Callable[[bytes], M], progress: Progress) -> Iterator[M]:
    task = progress.add_task(file.name, total=None)
    for number, line in _lines(file):
        if line.strip():
            yield _decoded(file, number, line, decode)
        if number % _STEP == 0:
            progress.update(task, completed=number)


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield number, line
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServiceError(f"{file} cannot be read{f' after line {number}' if number else ''}: {reason}") from error


def _decoded(file: Path, number: int, line: bytes, decode: Callable[[bytes], M]) -> M:
    try:
        return decode(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        value = "" if first["type"] in {"json_invalid", "missing"} else f" = {first['input']!r:.80}"
        raise ServiceError(f"{file}, line {number}: {where}{value}{': ' if where or value else ''}{first['msg']}") from error
