"""Verifies an audit trail against the log: rebuilds every prompt and compares its hash, and looks up every reference.

Each record that differs is named. Records that cannot be verified, as they were made with other settings or rest on records that the
log no longer holds, are counted separately.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid5

from schemas import AuditRecord, OffsetRef, Outcome, RunMode, Topic, topic_name
from services.core.bus import Record
from services.core.table_inputs import table_specs
from services.fusion.state.triggers import TriggerIds
from services.replay.audit_trail import AuditEntry, AuditTrail
from services.replay.log_source import LogSource, PartitionLog, PartitionRequest
from services.replay.prompt_rebuilder import PromptRebuilder, RebuiltPrompt, reference_histories

STRETCHES: Final = (1, 8, 1 << 30)
"""How many times as far back to read when books have too few bars; the last reaches the beginning of any log."""


@dataclass(slots=True)
class VerificationResult:
    """The result of verifying a trail."""

    records: int = 0
    """Audit records, duplicates included."""
    triggers: int = 0
    matched: int = 0
    """Prompts that were rebuilt with the hash in the audit."""
    unasked: dict[str, int] = field(default_factory=dict)
    """Records of triggers without a prompt, by outcome; their references are right."""
    other_settings: dict[str, int] = field(default_factory=dict)
    """Records by the configuration version that they were made with, where it is another one."""
    out_of_reach: int = 0
    """Records that rest on records that the log does not hold."""
    differing: list[str] = field(default_factory=list)
    """A sentence for each record that differs from the log."""
    signals: int | None = None
    """Signals that were compared with the audit; None when there were none to compare with."""
    contradicting: list[str] = field(default_factory=list)
    """A sentence for each trigger of which audit and signals say different things."""
    damaged: list[str] = field(default_factory=list)
    """A sentence for each damaged record of audit or log."""

    @property
    def all_match(self) -> bool:
        """Return whether every record could be verified, and matches."""
        return not (self.differing or self.contradicting or self.damaged or self.other_settings or self.out_of_reach)


class AuditVerifier:
    """Verifies trails. `on_judged` is called with the count of further records that have a result."""

    def __init__(self, rebuilders: Sequence[PromptRebuilder], inputs: LogSource, on_judged: Callable[[int], None]) -> None:
        """Rebuild each prompt from the log in `inputs` with the one of `rebuilders` that has the record's configuration version."""
        self._rebuilders = {one.prompts.version: one for one in rebuilders}
        self._first = rebuilders[0]
        self._inputs = inputs
        self._on_judged = on_judged
        self._run_mode = self._first.settings.run_mode
        self._market_topic = topic_name(Topic.MARKET_FEATURES, self._run_mode)
        self._tables = {topic_name(name, self._run_mode): spec for name, spec in table_specs().items()}

    async def verify(self, trail: AuditTrail) -> VerificationResult:
        """Return the result for every record of `trail`; raise BusError."""
        result = VerificationResult(records=len(trail.lines), triggers=len({entry.record.trigger_id for entry in trail.entries}))
        result.damaged.extend([*trail.damaged, *self._inputs.damaged])
        self._on_judged(len(trail.damaged))
        partitions: dict[int, list[AuditEntry]] = defaultdict(list)
        for entry in trail.entries:
            partitions[entry.record.trigger.partition].append(entry)
        for number, entries in sorted(partitions.items()):
            for stretch in STRETCHES:
                log = await self._inputs.partition(number, wanted_of(entries, self._run_mode, stretch))
                entries = await self._judge(entries, log, result)  # noqa: PLW2901 - what is still open
                if not entries:
                    break
            self._give_up(entries, result)
        return result

    async def _judge(self, entries: Sequence[AuditEntry], log: PartitionLog, result: VerificationResult) -> list[AuditEntry]:
        """Verify what `log` suffices for; return the entries that need older records, which the topic holds."""
        symbols: dict[tuple[str, str], list[AuditEntry]] = defaultdict(list)
        older: list[AuditEntry] = []
        for entry in entries:
            problem = self._of_references(entry, log)
            if problem is None or not self._absent(entry, log):
                self._sort_out(entry, problem, symbols, result)
            elif log.more:
                older.append(entry)
            else:
                result.out_of_reach += 1
                self._on_judged(1)
        for (version, symbol), asked in sorted(symbols.items()):
            older.extend(await self._of_prompts(self._rebuilders[version], symbol, asked, log, result))
        return older

    def _sort_out(
        self, entry: AuditEntry, problem: str | None, symbols: dict[tuple[str, str], list[AuditEntry]], result: VerificationResult
    ) -> None:
        record = entry.record
        rebuilder = self._rebuilders.get(record.config_version)
        ours = rebuilder is not None and record.prompt_version in {None, rebuilder.prompts.prompt_version}
        wrong_ids = self._of_ids(record)
        if problem is None and ours:
            problem = wrong_ids
        if problem is not None:
            result.differing.append(_sentence(entry, problem))
        elif record.prompt_hash is None and wrong_ids is None:
            result.unasked[record.outcome.value] = result.unasked.get(record.outcome.value, 0) + 1
        elif not ours:
            made = record.config_version + (f", prompt {record.prompt_version}" if record.prompt_version else "")
            result.other_settings[made] = result.other_settings.get(made, 0) + 1
        else:
            symbols[record.config_version, record.symbol].append(entry)
            return
        self._on_judged(1)

    async def _of_prompts(
        self, rebuilder: PromptRebuilder, symbol: str, entries: list[AuditEntry], log: PartitionLog, result: VerificationResult
    ) -> list[AuditEntry]:
        records = log.symbols[symbol]
        open_: dict[int, AuditEntry] = {id(entry): entry for entry in entries}
        problems: dict[int, tuple[str, bool]] = {}
        for history in reference_histories(self._inputs.reference, symbol, records.market):
            if not open_:
                break
            async for entry, rebuilt in rebuilder.rebuild(records, history, list(open_.values())):
                if id(entry) not in open_:
                    continue
                problem = problem_of(entry, rebuilt)
                if problem is None:
                    del open_[id(entry)]
                    result.matched += 1
                    self._on_judged(1)
                else:
                    problems.setdefault(id(entry), (problem, rebuilt.short))
        older = []
        for key, entry in open_.items():
            problem, short = problems.get(key, (f"the log has no instrument {symbol}, or no bars at the as-of", False))
            if short and log.more:
                older.append(entry)
                continue
            self._on_judged(1)
            if short and not log.whole:
                result.out_of_reach += 1
            else:
                result.differing.append(_sentence(entry, problem))
        return older

    def _give_up(self, entries: Sequence[AuditEntry], result: VerificationResult) -> None:
        result.out_of_reach += len(entries)
        self._on_judged(len(entries))

    def _of_references(self, entry: AuditEntry, log: PartitionLog) -> str | None:
        """Return what is wrong with a record's references, None when nothing is."""
        record = entry.record
        for what, ref in _refs(entry):
            found = self._record(record.symbol, ref, log)
            if found is None:
                return f"{what} names {ref.topic!r}[{ref.partition}] offset {ref.offset}, where the log has no record of {record.symbol}"
            if (found.partition, found.timestamp_ms) != (ref.partition, ref.ts_ms):
                return (
                    f"{what} says {ref.topic!r}[{ref.partition}] offset {ref.offset} was appended at {ref.ts_ms}, and the log "
                    f"says partition {found.partition}, at {found.timestamp_ms}"
                )
        return None

    def _record(self, symbol: str, ref: OffsetRef, log: PartitionLog) -> Record | None:
        if ref.topic in self._tables:
            return self._inputs.reference.of_table(ref)
        return log.find(symbol, ref.topic, ref.offset, self._run_mode)

    def _of_ids(self, record: AuditRecord) -> str | None:
        """Return what is wrong with a record's ids, None when nothing is."""
        ref = record.trigger
        log_id = self._rebuilders.get(record.config_version, self._first).settings.fusion.log_id
        if TriggerIds(log_id).of(ref.topic, ref.partition, ref.offset, record.trigger_kind) != record.trigger_id:
            return (
                f"trigger_id is not that of {record.trigger_kind!r} on {ref.topic!r}[{ref.partition}] offset {ref.offset} in the log "
                f"{log_id!r} (fusion.log_id)"
            )
        if record.signal_id is not None and record.signal_id != uuid5(record.trigger_id, record.mode):
            return f"signal_id {record.signal_id} does not belong to its trigger"
        if record.outcome is Outcome.PUBLISHED and record.signal_id is None:
            return "outcome is published, but there is no signal_id"
        return None

    def _absent(self, entry: AuditEntry, log: PartitionLog) -> bool:
        """Return whether a record refers to offsets that the log does not hold any more: before the first of its symbol, or compacted."""
        lost = {ref.topic for _, ref in _refs(entry) if ref.topic in self._tables and self._inputs.reference.of_table(ref) is None}
        if any(self._tables[topic].compacted or not log.whole for topic in lost):
            return True
        if log.whole:
            return False
        held = log.symbols.get(entry.record.symbol)
        if held is None:
            return True
        for _, ref in _refs(entry):
            if ref.topic in self._tables:
                continue
            records = held.market if ref.topic == self._market_topic else held.vision
            if not records or ref.offset < records[0].offset:
                return True
        return False


def wanted_of(entries: Iterable[AuditEntry], run_mode: RunMode, stretch: int = 1) -> PartitionRequest:
    """Return the request for the records that these decisions used, `stretch` times as far back as the calendars require."""
    entries = list(entries)
    refs = [ref for entry in entries for _, ref in _refs(entry)]
    market, vision = (topic_name(topic, run_mode) for topic in (Topic.MARKET_FEATURES, Topic.VISION_FEATURES))
    return PartitionRequest(
        symbols=frozenset(entry.record.symbol for entry in entries),
        first_ms=min((ref.ts_ms for ref in refs), default=0),
        market_stop=1 + max((ref.offset for ref in refs if ref.topic == market), default=-1),
        vision_stop=1 + max((ref.offset for ref in refs if ref.topic == vision), default=-1),
        stretch=stretch,
    )


def _refs(entry: AuditEntry) -> list[tuple[str, OffsetRef]]:
    record = entry.record
    refs = [("trigger", record.trigger)]
    if record.as_of is not None:
        refs += [(f"as_of.{name}", ref) for name, ref in record.as_of.refs().items()]
    return refs


def problem_of(entry: AuditEntry, rebuilt: RebuiltPrompt) -> str | None:
    """Return how a rebuilt prompt differs from the record, None when it matches."""
    record, prompt = entry.record, rebuilt.prompt
    if record.as_of is None:
        return "there is a prompt_hash, but no as_of"
    compared = [
        ("prompt_hash", record.prompt_hash, prompt.hash),
        ("as_of.market", record.as_of.market, rebuilt.market_ref),
        ("as_of.vision", record.as_of.vision, rebuilt.vision_ref),
        ("as_of.tables", record.as_of.tables, rebuilt.table_refs),
        ("epoch", record.epoch, prompt.epoch),
        ("prompt_tokens", record.prompt_tokens, len(prompt.ids)),
        ("vision", record.vision, rebuilt.plan.vision.state),
    ]
    wrong = [f"{name} is {said} in the audit and {found} from the log" for name, said, found in compared if said != found]
    return "; ".join(wrong) or None


def _sentence(entry: AuditEntry, problem: str) -> str:
    record = entry.record
    as_of = record.as_of
    rests = "" if as_of is None else f" (as of market {as_of.market.offset}, vision {as_of.vision.offset if as_of.vision else 'none'})"
    return f"{entry.where}: {record.symbol} {record.interval} {record.mode}, trigger {record.trigger_id}{rests}: {problem}"
