"""Runs `aquiline replay`: opens audit trail and log, then verifies, shows, asks again or exports, and prints the result."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from services.core import logs
from services.core.bus.connect import connect
from services.core.bus.topic_reader import TOPIC, TimeRange
from services.core.clock import SystemClock
from services.core.errors import ServiceError
from services.core.exported_log import LogFileError
from services.core.settings import LogSettings, Settings, SettingsError, load
from services.fusion.service import connect_engine, load_tokenizer
from services.inference.engine import EngineError
from services.replay.ask_again import NewAnswer, ask_again
from services.replay.audit_trail import AuditEntry, AuditTrail, read_trail_file, read_trail_topic, write_lines
from services.replay.export_log import export_for_trail
from services.replay.log_source import FileLog, LogSource, TopicLog
from services.replay.prompt_rebuilder import PromptRebuilder
from services.replay.show_decision import rebuilt_of, show
from services.replay.verify_audit import AuditVerifier, VerificationResult
from services.replay.verify_signals import PublishedSignals, contradictions, read_signals_file, read_signals_topic, signals_of
from services.strategy.folder import StrategyError

_MOST_NAMED: Final = 20
"""Records that are named one by one; further ones are counted."""
_AUDIT_END: Final = "audit.jsonl"
_LOG_END: Final = "log.jsonl.gz"
_SIGNALS_END: Final = "signals.jsonl"


@dataclass(frozen=True, slots=True)
class Source:
    """Where audit trail and log are, as the command line gives it."""

    audit: str
    log: str | None
    since_ms: int | None
    until_ms: int | None
    config: Path | None
    signals: Path | None = None

    @property
    def times(self) -> TimeRange:
        """Return the append times of the audit records."""
        return TimeRange(self.since_ms, self.until_ms)


class Opened(NamedTuple):
    """Audit trail, signals, log and rebuilder of one command."""

    trail: AuditTrail
    signals: PublishedSignals | None
    inputs: LogSource
    rebuilders: Sequence[PromptRebuilder]
    """One for each configuration that decided on the log."""

    def rebuilder_of(self, entry: AuditEntry) -> PromptRebuilder:
        """Return the rebuilder of a record's configuration, the first one when none is."""
        return next((one for one in self.rebuilders if one.prompts.version == entry.record.config_version), self.rebuilders[0])


async def verify_command(source: Source) -> bool:
    """Verify a trail and print the result; return whether every record matches."""
    err = Console(stderr=True)
    async with opened(source) as (trail, signals, inputs, rebuilders):
        with progress_bar(err) as progress:
            task = progress.add_task("audit records", total=len(trail.lines))
            verifier = AuditVerifier(rebuilders, inputs, lambda more: progress.advance(task, more))
            result = await verifier.verify(trail)
        if signals is not None:
            result.signals = len(signals.by_id)
            result.contradicting.extend(contradictions(trail.entries, signals))
            result.damaged.extend(signals.damaged)
        _print_result(
            Console(),
            result,
            trail.name,
            inputs.name,
            ", ".join(f"{one.prompts.version}, prompt {one.prompts.prompt_version}" for one in rebuilders),
        )
    return result.all_match


async def show_command(source: Source, wanted: str) -> bool:
    """Show one decision; return whether its rebuilt prompt has the hash in the audit."""
    async with opened(source) as found:
        entry = found.trail.one(wanted)
        rebuilder = found.rebuilder_of(entry)
        rebuilt = await rebuilt_of(entry, rebuilder, found.inputs)
        show(Console(), entry, rebuilt, rebuilder.tokenizer)
        return rebuilt.prompt.hash == entry.record.prompt_hash


async def ask_command(source: Source, url: str, wanted: str | None, last: int) -> None:
    """Ask an engine again, and print how its answers differ."""
    console, clock = Console(), SystemClock()
    async with opened(source) as found:
        trail = found.trail
        answered = [entry for entry in trail.entries if entry.record.answer and entry.record.prompt_hash]
        entries = [trail.one(wanted)] if wanted is not None else answered[-last:]
        if not entries:
            raise ServiceError(f"{trail.name} has no decision with an answer; there is nothing to ask again")
        engine = connect_engine(found.rebuilder_of(entries[-1]).settings.engine.model_copy(update={"urls": [url]}), clock)
        counts = dict.fromkeys(("identical", "same decision", "different"), 0)
        try:
            info = await engine.info()
            console.print(Text(f"asking {info.name}, {info.model}"))
            for entry in entries:
                rebuilder = found.rebuilder_of(entry)
                rebuilt = await rebuilt_of(entry, rebuilder, found.inputs)
                again = await ask_again(entry, rebuilt, rebuilder, engine, clock)
                counts[again.agreement] += 1
                _print_answer(console, again, whole=wanted is not None)
        except EngineError as error:
            raise ServiceError(f"the engine at {url} did not answer: {error}") from error
        finally:
            await engine.close()
        console.print(
            f"{len(entries)} asked again: {counts['identical']} identical answers, {counts['same decision']} with the same decision, "
            f"{counts['different']} with another decision"
        )


async def export_command(source: Source, name: str) -> None:
    """Write a time range of the topics to three files."""
    audit, log, published = (Path(f"{name}-{end}") for end in (_AUDIT_END, _LOG_END, _SIGNALS_END))
    err = Console(stderr=True)
    async with opened(source) as (trail, signals, inputs, _):
        assert isinstance(inputs, TopicLog) and signals is not None  # noqa: S101, PT018 - `topic` was asked for
        if not trail.lines:
            raise ServiceError(f"{trail.name} has no audit record in this time range; there is nothing to export")
        try:
            write_lines(audit, (line.value for line in trail.lines))
            lines = signals_of(trail.entries, signals)
            write_lines(published, lines)
            with progress_bar(err) as progress:
                task = progress.add_task("log records", total=None)
                count = await export_for_trail(trail, inputs, log, lambda done, total: progress.update(task, completed=done, total=total))
        except OSError as error:
            raise ServiceError(f"{error.filename} cannot be written: {error.strerror}") from error
    err.print(f"wrote {audit} ({len(trail.lines)} records), {published} ({len(lines)} records) and {log} ({count} records)")
    err.print(f"to verify them: aquiline replay --verify {audit}")


@contextlib.asynccontextmanager
async def opened(source: Source) -> AsyncIterator[Opened]:
    """Yield trail, log and a rebuilder with the settings in force."""
    logs.configure(LogSettings(level="error"), service="replay")
    file = _log_file(source)
    settings = load(source.config) if source.config is not None or file is None else None
    inputs: LogSource
    signals: PublishedSignals | None
    async with contextlib.AsyncExitStack() as stack:
        if settings is not None and TOPIC in {source.audit, source.log}:
            if settings.bus.url == "memory://":
                raise SettingsError("bus.url is memory://, which no other process can read; name the kafka:// bus")
            bus = connect(settings.bus, SystemClock(), settings.topics)
            stack.push_async_callback(bus.close)
        if file is None:
            assert settings is not None  # noqa: S101 - loaded above
            inputs = TopicLog(bus, settings)
            await inputs.open()
            stack.push_async_callback(inputs.close)
        else:
            inputs = FileLog(file, settings)
        if source.audit == TOPIC:
            trail = await read_trail_topic(bus, inputs.settings.run_mode, source.times)
            signals = await read_signals_topic(bus, inputs.settings.run_mode, source.times)
        else:
            trail = read_trail_file(Path(source.audit))
            signals = _signals_of_file(source)
        yield Opened(trail, signals, inputs, [_rebuilder(one) for one in inputs.configurations])


def _rebuilder(settings: Settings) -> PromptRebuilder:
    try:
        return PromptRebuilder(settings, load_tokenizer(settings.engine))
    except StrategyError:  # a hook is not installed
        raise
    except ValueError as error:
        raise SettingsError(f"engine.chat_template = {settings.engine.chat_template!r}: {error}") from error


def _log_file(source: Source) -> Path | None:
    """Return the file of the exported log, None to read the topics."""
    audit = Path(source.audit)
    if source.audit != TOPIC and not audit.is_file():
        raise LogFileError(f"audit file {str(audit)!r} does not exist; name a file, or `topic` for the audit topic")
    if source.log is not None:
        return None if source.log == TOPIC else Path(source.log)
    if source.audit == TOPIC:
        return None
    beside = audit.with_name(audit.name.removesuffix(_AUDIT_END) + _LOG_END) if audit.name.endswith(_AUDIT_END) else None
    if beside is None or not beside.is_file():
        why = "its name does not end in audit.jsonl" if beside is None else f"{beside.name} is not beside it"
        raise LogFileError(f"the log of {audit} cannot be found: {why}; name it with --log (`topic` for the topics)")
    return beside


def _signals_of_file(source: Source) -> PublishedSignals | None:
    """Return the signals of an audit file, None when none are named and no file is beside it."""
    if source.signals is not None:
        return read_signals_file(source.signals)
    audit = Path(source.audit)
    beside = audit.with_name(audit.name.removesuffix(_AUDIT_END) + _SIGNALS_END)
    return read_signals_file(beside) if audit.name.endswith(_AUDIT_END) and beside.is_file() else None


def progress_bar(console: Console) -> Progress:
    """Return the progress bar that the commands show."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)


def _print_result(console: Console, result: VerificationResult, trail: str, log: str, version: str) -> None:
    def out(text: str, style: str = "") -> None:
        console.print(Text(text, style), soft_wrap=True)

    for title, sentences in (
        ("damaged", result.damaged),
        ("different from the log", result.differing),
        ("contradicting the signals", result.contradicting),
    ):
        if sentences:
            out(f"{len(sentences)} {'record is' if len(sentences) == 1 else 'records are'} {title}:", "bold red")
            for sentence in sentences[:_MOST_NAMED]:
                out(f"  {sentence}", "red")
            if len(sentences) > _MOST_NAMED:
                out(f"  ... and {len(sentences) - _MOST_NAMED} more", "red")
    for made, count in sorted(result.other_settings.items()):
        out(
            f"{count} records were made with configuration {made}; these settings have {version}. They are not verified: give the "
            "settings that the workers had with --config (fusion.strategy, intervals, trigger_intervals, window_bars, epoch_slots, "
            "slow_window_bars, max_vision_age_bars, answer_form, rationale, engine.chat_template and the tokenizer define a configuration; "
            "fusion.log_id must be the same too)",
            "yellow",
        )
    if result.out_of_reach:
        out(f"{result.out_of_reach} records rest on records that {log} does not hold; they are not verified", "yellow")
    unasked = ", ".join(f"{count} {outcome}" for outcome, count in sorted(result.unasked.items()))
    if result.signals is None:
        out("the signals were not compared: name their file with --signals", "yellow")
    compared = "" if result.signals is None else f", {result.signals} signals compared"
    head = f"{result.records} audit records of {result.triggers} triggers in {trail}, against {log}"
    hashes = "every hash matches" if result.all_match else "their hashes match" if result.matched else "nothing is verified"
    tail = f"; {unasked} without a prompt" if unasked else ""
    out(f"{head}: {result.matched} prompts rebuilt, {hashes}{tail}{compared}", "bold green" if result.all_match else "")


def _print_answer(console: Console, again: NewAnswer, *, whole: bool) -> None:
    record = again.entry.record
    difference = "; ".join(again.differences) or again.agreement
    console.print(Text(f"{record.symbol} {record.interval} {record.mode}, trigger {record.trigger_id}: {difference}"), soft_wrap=True)
    if whole:
        console.print(Text(f"before: {record.answer}\nnow:    {again.text}"), soft_wrap=True)
