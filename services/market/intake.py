"""From a record's bytes to a candle, or to the reason why it is put aside. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from schemas import Candle, DeadLetterReason, RunMode
from services.core.bus import Record

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
        return _refusal(error)
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


def _refusal(error: ValidationError) -> Refused:
    problems = error.errors(include_url=False, include_context=False)
    if problems[0]["type"] == "json_invalid":
        return Refused(DeadLetterReason.MALFORMED, problems[0]["msg"])
    if not problems[0]["loc"] and problems[0]["type"] == "model_type":
        return Refused(DeadLetterReason.MALFORMED, f"not a JSON object but {problems[0]['input']!r:.{_SHOWN}}")
    for problem in problems:
        if problem["loc"] == ("schema_version",) and problem["type"] == "literal_error":
            detail = f"schema_version {problem['input']!r:.{_SHOWN}}; this service knows 1"
            return Refused(DeadLetterReason.UNSUPPORTED_VERSION, detail)
    return Refused(DeadLetterReason.INVALID, "; ".join(_told(problem) for problem in problems))


def _told(problem: ErrorDetails) -> str:
    if not problem["loc"]:
        return problem["msg"]
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {problem['msg']}" if problem["type"] == "missing" else f"{where} = {problem['input']!r:.{_SHOWN}}: {problem['msg']}"
