"""Shows one decision: what was decided, from which records, whether the log confirms it, and the prompt that the model got."""

from __future__ import annotations

import datetime as dt
from typing import Final

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from services.core.errors import ServiceError
from services.core.tokenizer import Tokenizer
from services.replay.audit_trail import AuditEntry
from services.replay.log_source import LogSource, SymbolLog
from services.replay.prompt_rebuilder import PromptRebuilder, RebuiltPrompt, reference_histories
from services.replay.verify_audit import problem_of, wanted_of

_STRETCH: Final = 8


async def rebuilt_of(entry: AuditEntry, rebuilder: PromptRebuilder, inputs: LogSource) -> RebuiltPrompt:
    """Return one decision's prompt, that of the likeliest history when none gives its hash; raise ServiceError without any."""
    record = entry.record
    if record.prompt_hash is None or record.as_of is None:
        ended = f"{record.outcome.value} ({record.reason}) {record.detail}".rstrip()
        raise ServiceError(f"{entry.where}: this trigger has no prompt; it ended {ended}")
    log = await inputs.partition(record.trigger.partition, wanted_of([entry], rebuilder.settings.run_mode, _STRETCH))
    found: list[RebuiltPrompt] = []
    records = log.symbols.get(record.symbol, SymbolLog())
    for history in reference_histories(inputs.reference, record.symbol, records.market):
        async for _, rebuilt in rebuilder.rebuild(records, history, [entry]):
            if problem_of(entry, rebuilt) is None:
                return rebuilt
            found.append(rebuilt)
    if not found:
        market = record.as_of.market
        as_of = f"{record.symbol} as of {market.topic!r}[{market.partition}] offset {market.offset}"
        raise ServiceError(f"{entry.where}: {inputs.name} does not hold the records of this decision: {as_of}")
    return found[0]


def show(console: Console, entry: AuditEntry, rebuilt: RebuiltPrompt, tokenizer: Tokenizer) -> None:
    """Print a decision with its prompt and its answer."""
    console.print(_facts(entry, rebuilt))
    console.print(Rule(f"prompt, {len(rebuilt.prompt.ids)} tokens"))
    # Decoded from the ids: they are what the engine got.
    console.print(Text(tokenizer.decode(rebuilt.prompt.ids)), soft_wrap=True)
    if entry.record.answer is not None:
        console.print(Rule("answer"))
        console.print(Text(entry.record.answer), soft_wrap=True)


def _facts(entry: AuditEntry, rebuilt: RebuiltPrompt) -> Table:
    record = entry.record
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    ended = record.outcome.value if record.reason is None else f"{record.outcome.value} ({record.reason}) {record.detail}"
    rows = [
        ("trigger", f"{record.trigger_id}, {record.trigger_kind}"),
        ("lane", f"{record.symbol} {record.interval} {record.mode}"),
        ("outcome", f"{ended.strip()}, {_time(record.ts_done_ms)}"),
        ("action", record.action.value if record.action else "none"),
        ("as of", _as_of(entry)),
        ("vision", f"{rebuilt.plan.vision.state}"),
        ("engine", f"{record.engine}, {record.model} ({record.source})"),
        ("epoch", f"{rebuilt.prompt.epoch}, {rebuilt.prompt.prefix_tokens} tokens of prefix"),
        ("hash", rebuilt.prompt.hash),
        ("check", problem_of(entry, rebuilt) or "the hash matches the audit"),
    ]
    for name, said in rows:
        table.add_row(name, Text(said))
    return table


def _as_of(entry: AuditEntry) -> str:
    as_of = entry.record.as_of
    if as_of is None:
        return ""
    found = [f"{name} {ref.offset} ({_time(ref.ts_event_ms)})" for name, ref in as_of.refs().items()]
    return ", ".join([*found, *(["vision none"] if as_of.vision is None else [])])


def _time(ts_ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(ts_ms / 1000, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
