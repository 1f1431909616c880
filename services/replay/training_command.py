"""Runs `aquiline export training`: reads audit and outcomes, rebuilds the prompts, and writes the training files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Self

import orjson
from pydantic import ValidationError
from rich.console import Console

from schemas import RunMode, SignalOutcome, Topic, topic_name
from services.core.bus import Bus
from services.core.bus.connect import connect
from services.core.bus.topic_reader import TOPIC, TimeRange, read_within
from services.core.clock import SystemClock
from services.core.errors import ServiceError
from services.core.settings import Settings
from services.replay.audit_trail import AuditEntry, read_trail_file
from services.replay.log_source import LogSource
from services.replay.prompt_rebuilder import PromptRebuilder, RebuiltPrompt, reference_histories
from services.replay.replay_command import Source, opened, progress_bar
from services.replay.training_samples import (
    Sample,
    by_prompt,
    dataset_info,
    pairs_of,
    plain_row,
    preference_row,
    samples_of,
    sharegpt_row,
    split_at,
    split_by_time,
)
from services.replay.verify_audit import STRETCHES, problem_of, wanted_of

_AUDIT_END: Final = "audit.jsonl"
_OUTCOMES_END: Final = "outcomes.jsonl"
_PARTS: Final = ("train", "test")


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """The options of the command."""

    source: Source
    outcomes: Path | None
    others: tuple[Path, ...]
    """Further audit files, with their outcomes beside them, whose answers to the same prompts make pairs."""
    folder: Path
    test_from_ms: int | None
    test_share: float
    embargo_ms: int
    min_difference: float
    """Least difference of net returns for a pair."""


async def export_training(request: TrainingRequest) -> None:
    """Write the training files; raise SettingsError, BusError, LogFileError, ServiceError."""
    err = Console(stderr=True)
    async with opened(request.source) as source:
        trail, inputs = source.trail, source.inputs
        outcomes = await _outcomes(request, inputs.settings)
        samples = samples_of((entry.record for entry in trail.entries), outcomes)
        if not samples:
            raise ServiceError(f"{trail.name} has no published decision with an answer; there is nothing to export")
        test_from_ms = split_at(samples, request.test_share) if request.test_from_ms is None else request.test_from_ms
        split = split_by_time(samples, test_from_ms, request.embargo_ms)
        others = by_prompt(sample for file in request.others for sample in _other_samples(file))
        part_of = {sample.record.trigger_id: part for part, of_part in zip(_PARTS, split[:2], strict=True) for sample in of_part}
        wanted = {sample.record.trigger_id: sample for of_part in split[:2] for sample in of_part}
        entries = {entry.record.trigger_id: entry for entry in reversed(trail.entries) if entry.record.trigger_id in wanted}
        counts: Counter[str] = Counter()
        with _Files(request.folder) as files, progress_bar(err) as progress:
            task = progress.add_task("prompts", total=len(entries))
            for rebuilder in source.rebuilders:
                own = [entry for entry in entries.values() if source.rebuilder_of(entry) is rebuilder]
                async for entry, rebuilt in rebuilt_prompts(own, rebuilder, inputs):
                    sample, part = wanted[entry.record.trigger_id], part_of[entry.record.trigger_id]
                    system, user = rebuilder.prompts.text(rebuilt.plan)
                    files.write(f"plain-{part}", plain_row(sample, system, user))
                    files.write(f"sharegpt-{part}", sharegpt_row(sample, system, user))
                    counts[part] += 1
                    for pair in pairs_of([sample], others, request.min_difference):
                        files.write(f"dpo-{part}", preference_row(pair, system, user))
                        counts[f"{part} pairs"] += 1
                    progress.advance(task)
            files.write_info()
    _summarize(err, request, counts, missing=len(entries) - counts["train"] - counts["test"], purged=split.purged)
    if simulated := {sample.record.source for sample in samples} - {"llm"}:
        err.print(f"note: some answers came from {', '.join(sorted(filter(None, simulated)))}, not from a language model", style="yellow")


async def rebuilt_prompts(
    entries: Sequence[AuditEntry], rebuilder: PromptRebuilder, inputs: LogSource
) -> AsyncIterator[tuple[AuditEntry, RebuiltPrompt]]:
    """Yield each entry whose prompt can be rebuilt with its hash, in no particular order; raise BusError."""
    partitions: dict[int, list[AuditEntry]] = defaultdict(list)
    for entry in entries:
        partitions[entry.record.trigger.partition].append(entry)
    for number, of_partition in sorted(partitions.items()):
        missing = {id(entry): entry for entry in of_partition}
        for stretch in STRETCHES:
            log = await inputs.partition(number, wanted_of(missing.values(), rebuilder.settings.run_mode, stretch))
            for symbol in sorted({entry.record.symbol for entry in missing.values()} & log.symbols.keys()):
                records = log.symbols[symbol]
                for history in reference_histories(inputs.reference, symbol, records.market):
                    asked = [entry for entry in missing.values() if entry.record.symbol == symbol]
                    async for entry, rebuilt in rebuilder.rebuild(records, history, asked):
                        if id(entry) in missing and problem_of(entry, rebuilt) is None:
                            del missing[id(entry)]
                            yield entry, rebuilt
            if not missing or not log.more:
                break


class _Files:
    """The files of one export, created when the first row is written. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in ("plain", "sharegpt", "dpo"):
                for part in _PARTS:
                    self._files[f"{name}-{part}"] = self._stack.enter_context((self._folder / f"{name}-{part}.jsonl").open("wb"))
        except OSError as error:
            self._stack.close()
            raise ServiceError(f"{error.filename or self._folder} cannot be written: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, name: str, row: object) -> None:
        self._files[name].write(orjson.dumps(row) + b"\n")

    def write_info(self) -> None:
        sets = {f"aquiline_{kind}_{part}": (f"{name}-{part}.jsonl", name == "dpo") for kind, name in _KINDS for part in _PARTS}
        (self._folder / "dataset_info.json").write_bytes(orjson.dumps(dataset_info(sets), option=orjson.OPT_INDENT_2) + b"\n")


_KINDS: Final = (("sft", "sharegpt"), ("dpo", "dpo"))


async def _outcomes(request: TrainingRequest, settings: Settings) -> list[SignalOutcome]:
    source = request.source
    if request.outcomes is None and source.audit == TOPIC:
        bus = connect(settings.bus, SystemClock(), settings.topics)
        try:
            return await _outcomes_of_topic(bus, settings.run_mode, source.since_ms)
        finally:
            await bus.close()
    return read_outcomes_file(_outcomes_beside(Path(source.audit)) if request.outcomes is None else request.outcomes)


async def _outcomes_of_topic(bus: Bus, run_mode: RunMode, since_ms: int | None) -> list[SignalOutcome]:
    reader = await bus.reader(client_id="aquiline-replay")
    try:
        topic = topic_name(Topic.SIGNAL_OUTCOMES, run_mode)
        return [_decoded(record.value or b"", topic) async for record in read_within(bus, reader, topic, TimeRange(since_ms))]
    finally:
        await reader.close()


def read_outcomes_file(file: Path) -> list[SignalOutcome]:
    """Return the outcomes in `file`, one message a line; raise ServiceError."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise ServiceError(
            f"outcomes file {str(file)!r} cannot be read: {error.strerror}; name it with --outcomes (a backtest writes outcomes.jsonl)"
        ) from error
    return [_decoded(line, f"{file}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _decoded(value: bytes, where: str) -> SignalOutcome:
    try:
        return SignalOutcome.decode(value)
    except ValidationError as error:
        raise ServiceError(f"{where}: not a valid outcome: {error.errors(include_url=False)[0]['msg']}") from error


def _other_samples(audit: Path) -> Iterable[Sample]:
    trail = read_trail_file(audit)
    return samples_of((entry.record for entry in trail.entries), read_outcomes_file(_outcomes_beside(audit)))


def _outcomes_beside(audit: Path) -> Path:
    return audit.with_name(audit.name.removesuffix(_AUDIT_END) + _OUTCOMES_END)


def _summarize(err: Console, request: TrainingRequest, counts: Counter[str], *, missing: int, purged: int) -> None:
    say: Callable[[str], None] = lambda text: err.print(text, highlight=False, markup=False, soft_wrap=True)  # noqa: E731 - one line, three uses
    say(
        f"wrote {counts['train']} training and {counts['test']} test samples, {counts['train pairs']} and {counts['test pairs']} pairs "
        f"to {request.folder}"
    )
    if purged:
        say(f"left out {purged} samples whose outcome was not known {request.embargo_ms // 60_000} minutes before the test")
    if missing:
        say(f"left out {missing} samples whose prompt cannot be rebuilt; `aquiline replay --verify` says why")
