"""From a record's bytes to a candle, or to the reason why it is put aside. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson
from pydantic import ValidationError

from schemas import Candle, DeadLetterReason, RunMode
from services.core.bus import Record

_VERSION: Final = 1
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a record is put aside."""

    reason: DeadLetterReason
    detail: str


def decode(record: Record, *, modes: frozenset[RunMode], max_bytes: int, latest_ms: int) -> Candle | Refused:
    """Return the candle in `record`, or why it is refused.

    A record over `max_bytes` is not parsed. A bar that has closed, or begun, after `latest_ms` is from the future: taken in, it
    would make every honest bar after it late.
    """
    if not record.value:
        return Refused(DeadLetterReason.EMPTY, "the record has no value")
    if len(record.value) > max_bytes:
        return Refused(DeadLetterReason.TOO_LARGE, f"{len(record.value)} bytes; at most {max_bytes} are parsed")
    try:
        candle = Candle.decode(record.value)
    except ValidationError as error:
        return _refusal(record.value, error)
    return _objection(record, candle, modes, latest_ms) or candle


def _objection(record: Record, candle: Candle, modes: frozenset[RunMode], latest_ms: int) -> Refused | None:
    if record.key is None or record.key != candle.symbol.encode():
        return Refused(DeadLetterReason.KEY_MISMATCH, f"the key is {record.key!r:.{_SHOWN}}, the symbol {candle.symbol!r}")
    if candle.run_mode not in modes:
        wanted = " or ".join(sorted(modes))
        return Refused(DeadLetterReason.WRONG_RUN_MODE, f"the candle is {candle.run_mode.value!r}; this service takes {wanted}")
    begun_ms = candle.ts_close_ms if candle.closed else candle.ts_open_ms
    if begun_ms > latest_ms:
        return Refused(DeadLetterReason.FUTURE, f"the bar {'closed' if candle.closed else 'began'} at {begun_ms}; now is {latest_ms}")
    return None


def _refusal(value: bytes, error: ValidationError) -> Refused:
    try:
        content = orjson.loads(value)
    except orjson.JSONDecodeError as broken:
        return Refused(DeadLetterReason.MALFORMED, f"not JSON: {broken}")
    if not isinstance(content, dict):
        return Refused(DeadLetterReason.MALFORMED, f"a JSON {type(content).__name__}; an object is wanted")
    version = content.get("schema_version")
    if isinstance(version, int) and version != _VERSION:
        return Refused(DeadLetterReason.UNSUPPORTED_VERSION, f"schema_version {version}; this service knows {_VERSION}")
    problems = [
        f"{'.'.join(map(str, item['loc'])) or 'candle'} = {item['input']!r:.{_SHOWN}}: {item['msg']}"
        for item in error.errors(include_url=False, include_context=False)
    ]
    return Refused(DeadLetterReason.INVALID, "; ".join(problems))
