"""The prompt of a decision, rebuilt from the log by `services/replay` and cut into the parts that the page shows.

Its ids are made piece by piece, as the worker makes them; that they are the prompt's is checked, and its hash is compared with the audit's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import numpy as np

from schemas import AuditRecord
from services.console.models import PromptSection, PromptView
from services.core.bus import Bus
from services.core.settings import Settings
from services.core.tokenizer import Tokenizer
from services.fusion.prompt.blocks import Encoder
from services.fusion.prompt.chat import Piece, Special
from services.fusion.service import load_tokenizer
from services.inference.engine import TokenIds
from services.replay.audit_trail import AuditEntry
from services.replay.log_source import TopicLog
from services.replay.prompt_rebuilder import PromptRebuilder, RebuiltPrompt
from services.replay.show_decision import rebuilt_of
from services.replay.verify_audit import problem_of

TIMEOUT_S: Final = 60.0

Kind = Literal["rules", "instrument", "bars", "page", "since", "tail"]


class _Part(NamedTuple):
    kind: Kind
    title: str
    pieces: Sequence[Piece]


class PromptViewer:
    """Rebuilds prompts, one at a time: each reads a part of the log."""

    def __init__(self, bus: Bus, configurations: Sequence[Settings]) -> None:
        """Use the settings of the workers that decided, `configurations`; the first one where none fits."""
        self._bus = bus
        self._configurations = configurations
        self._rebuilders: list[PromptRebuilder] = []
        self._one_at_a_time = asyncio.Lock()

    async def view(self, audit: AuditRecord, where: str) -> PromptView:
        """Return the prompt of a decision; raise ServiceError where it has none or the log lacks it, BusError, and TimeoutError."""
        async with asyncio.timeout(TIMEOUT_S), self._one_at_a_time:
            # The demo's acts add theirs one after the other.
            if len(self._rebuilders) != len(self._configurations):
                self._rebuilders = await asyncio.to_thread(self._load)
            rebuilder = next((one for one in self._rebuilders if one.prompts.version == audit.config_version), self._rebuilders[0])
            log = TopicLog(self._bus, rebuilder.settings)
            await log.open()
            try:
                entry = AuditEntry(where, audit)
                rebuilt = await rebuilt_of(entry, rebuilder, log)
            finally:
                await log.close()
        return _view(entry, rebuilt, rebuilder)

    def _load(self) -> list[PromptRebuilder]:
        return [PromptRebuilder(one, load_tokenizer(one.engine)) for one in self._configurations]


def _view(entry: AuditEntry, rebuilt: RebuiltPrompt, rebuilder: PromptRebuilder) -> PromptView:
    record, prompt = entry.record, rebuilt.prompt
    parts = _parts(rebuilt, rebuilder)
    encoder = Encoder(rebuilder.tokenizer, rebuilder.prompts.template)
    ids = [np.concatenate(encoder.encode_all(part.pieces)) for part in parts]
    if not np.array_equal(np.concatenate(ids), prompt.ids):
        raise RuntimeError("the parts of the prompt do not add up to its token ids")
    sections, at = [], 0
    for part, of_part in zip(parts, ids, strict=True):
        held = min(len(of_part), max(0, (record.cached_tokens or 0) - at))
        sections.append(_section(part, of_part, held, rebuilder.tokenizer))
        at += len(of_part)
    problem = problem_of(entry, rebuilt)
    return PromptView(
        matches=problem is None,
        problem=problem,
        audit_hash=record.prompt_hash,
        rebuilt_hash=prompt.hash,
        epoch=prompt.epoch,
        prompt_tokens=len(prompt.ids),
        cached_tokens=record.cached_tokens,
        prefix_tokens=prompt.prefix_tokens,
        sections=sections,
    )


def _section(part: _Part, ids: TokenIds, held: int, tokenizer: Tokenizer) -> PromptSection:
    # A token may hold half a character: the text is cut where the tokens before it end, and only the cut is decoded.
    text = "".join(piece.token if isinstance(piece, Special) else piece for piece in part.pieces)
    cut = len(text) if held == len(ids) else len(tokenizer.decode(ids[:held])) if held else 0
    return PromptSection(kind=part.kind, title=part.title, tokens=len(ids), cached=text[:cut], read=text[cut:])


def _parts(rebuilt: RebuiltPrompt, rebuilder: PromptRebuilder) -> list[_Part]:
    plan, template = rebuilt.plan, rebuilder.prompts.template
    pieces = [block.piece for block in plan.prefix.blocks]
    rules = pieces.index(rebuilder.prompts.rules) + 1 + len(template.middle)
    fixed = plan.prefix.fixed
    parts = [_Part("rules", "Rules and answer contract", pieces[:rules]), _Part("instrument", "Instrument", pieces[rules : rules + 1])]
    slower = pieces[rules + 1 : fixed]
    if slower:
        parts.append(_Part("bars", "Slower bars, frozen at the epoch's start; heading of the pages", slower))
    pages = pieces[fixed:]
    parts += [_Part("page", f"Page {number} of {len(pages)}", [page]) for number, page in enumerate(pages, 1)]
    if plan.lines:
        parts.append(_Part("since", f"Since the epoch's boundary: {len(plan.lines)} rows", plan.lines))
    parts.append(_Part("tail", "Tail: session, open bars, facts, vision, question", [plan.tail, *template.tail(plan.mode)]))
    return parts
