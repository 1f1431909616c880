"""Random logs with decisions made on them as a worker goes along, written to files as `aquiline replay` reads them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid5

from schemas import AsOf, AuditRecord, InstrumentEvent, OffsetRef, Outcome, Topic, topic_name
from services.core.bus import Record
from services.core.exported_log import Header, LogWriter
from services.core.settings import Settings
from services.fusion.inputs.tables import Tables
from services.fusion.state.triggers import TriggerIds
from services.replay.audit_trail import read_trail_file
from services.replay.log_source import FileLog
from services.replay.prompt_rebuilder import PromptRebuilder
from services.replay.verify_audit import AuditVerifier, VerificationResult
from tests.unit.fusion import build
from tests.unit.fusion.build import MODE, START
from tests.unit.fusion.log import INSTRUMENTS, TOKENIZER, Folder, Logs

SMALL = build.settings(intervals=["1m", "5m"], window_bars=7, epoch_slots=3, slow_window_bars=3, min_bars=1)
LOG, AUDIT = "run-log.jsonl", "run-audit.jsonl"


@dataclass
class Decided:
    """A log of both inputs and of the tables, and the audit of what was decided on it."""

    settings: Settings
    inputs: list[Record]
    tables: list[Record]
    audits: list[AuditRecord] = field(default_factory=list)

    def write(self, folder: Path, *, whole: bool = True, inputs: Sequence[Record] | None = None) -> None:
        """Write both files."""
        with LogWriter(folder / LOG, Header(self.settings, whole)) as out:
            for record in [*self.tables, *(self.inputs if inputs is None else inputs)]:
                out.write(record)
        (folder / AUDIT).write_bytes(b"".join(audit.encode() + b"\n" for audit in self.audits))


def table_records(at_ms: int = START, splits: Iterable[tuple[int, InstrumentEvent]] = ()) -> list[Record]:
    """Return the tables' records: instruments at `at_ms`, each split when it is told."""
    instruments, events = (topic_name(topic, MODE) for topic in (Topic.INSTRUMENTS, Topic.INSTRUMENT_EVENTS))
    named = [Record(instruments, 0, n, at_ms, one.symbol.encode(), one.encode()) for n, one in enumerate(INSTRUMENTS)]
    return named + [Record(events, 0, n, told, one.symbol.encode(), one.encode()) for n, (told, one) in enumerate(splits)]


async def decide(
    rng: random.Random,
    logs: Logs,
    settings: Settings = SMALL,
    splits: Sequence[tuple[int, InstrumentEvent]] = (),
    tables: Sequence[Record] = (),
) -> Decided:
    """Return decisions that a worker makes now and then while it reads both inputs, however they interleave.

    It hears of splits, and of the records of notes and positions in `tables`, in their order.
    """
    folder = Folder(settings)
    folder.prompts.tables = Tables(settings)
    decided = Decided(settings, [*logs.market, *logs.vision], [*table_records(splits=splits), *tables])
    market, vision, told, heard = list(logs.market), list(logs.vision), list(splits), list(tables)
    while market or vision:
        record = (market if market and (not vision or rng.random() < len(market) / (len(market) + len(vision))) else vision).pop(0)
        while told and record in logs.market and told[0][0] <= record.timestamp_ms:
            event = told.pop(0)[1]
            folder.instruments._fold_event(event)
            if (held := folder.books.get(event.symbol)) is not None:
                held.add_restatement(event)
        folder.feed([record])
        while heard and rng.random() < 0.3:
            folder.prompts.tables.take(heard.pop(0))
        if rng.random() < 0.15:
            audit = await _audit(folder, (record.key or b"").decode())
            decided.audits.extend([] if audit is None else [audit])
    return decided


async def _audit(folder: Folder, symbol: str) -> AuditRecord | None:
    book = folder.books.get(symbol)
    if book is None or book.market_ref is None or not book.bars["1m"]:
        return None
    plan = folder.prompts.plan(book, "1m", "fast")
    tables = None if folder.prompts.tables is None else folder.prompts.tables.as_of(symbol)
    prompt = await folder.prompts.build(plan)
    trigger = book.market_ref
    trigger_id = TriggerIds(folder.settings.fusion.log_id).of(trigger.topic, trigger.partition, trigger.offset, "closed_bar")
    return AuditRecord(
        schema_version=1,
        run_mode=MODE,
        trigger_id=trigger_id,
        trigger_kind="closed_bar",
        trigger=trigger,
        symbol=symbol,
        interval="1m",
        mode="fast",
        outcome=Outcome.PUBLISHED,
        ts_done_ms=trigger.ts_ms,
        signal_id=uuid5(trigger_id, "fast"),
        as_of=AsOf(market=trigger, vision=book.vision_ref, tables=tables),
        config_version=folder.prompts.version,
        prompt_version=folder.prompts.prompt_version,
        prompt_hash=prompt.hash,
        epoch=prompt.epoch,
        prompt_tokens=len(prompt.ids),
        vision=plan.vision.state,
        answer='{"action":"hold","conviction":40,"horizon":5,"rationale":"as it was"}',
    )


async def verified(folder: Path, settings: Settings | None = None) -> VerificationResult:
    """Return the verdict on the files in `folder`."""
    inputs = FileLog(folder / LOG, settings)
    judged = 0

    def on_judged(more: int) -> None:
        nonlocal judged
        judged += more

    trail = read_trail_file(folder / AUDIT)
    verdict = await AuditVerifier([PromptRebuilder(one, TOKENIZER) for one in inputs.configurations], inputs, on_judged).verify(trail)
    assert judged == len(trail.lines)
    return verdict


def moved(ref: OffsetRef, by: int) -> OffsetRef:
    """Return a reference to another offset."""
    return ref.model_copy(update={"offset": ref.offset + by})
