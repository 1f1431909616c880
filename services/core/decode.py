"""From a record's bytes to a message, or to the reason why it is dead-lettered. Pure, and the same for every service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import ValidationError

from schemas import DeadLetterReason, Message, RunMode
from services.core.bus import DecodedRecord, Record

_SHOWN: Final = 200


M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a record is dead-lettered."""

    reason: DeadLetterReason
    detail: str


def accepted_modes(run_mode: RunMode) -> tuple[RunMode, ...]:
    """Return the run modes of the records that a service in `run_mode` takes: `shadow` also reads `live`."""
    return (RunMode.LIVE, RunMode.SHADOW) if run_mode is RunMode.SHADOW else (run_mode,)


def decoder(model: type[M], modes: tuple[RunMode, ...], max_bytes: int) -> Callable[[Record], M | Refused]:
    """Return what turns a record into the message in it, whose key must be its `symbol`, or into why it is refused.

    A record of more than `max_bytes` is not parsed.
    """
    validate: Callable[[bytes], M] = model.__pydantic_validator__.validate_json  # model_validate_json without its look at arguments

    def decoded(record: Record) -> M | Refused:
        value = record.value
        if not value:
            return _unreadable(record)
        if len(value) > max_bytes:
            return Refused(DeadLetterReason.TOO_LARGE, f"{len(value)} bytes; at most {max_bytes} are parsed (bus.max_record_bytes)")
        try:
            message = validate(value)
        except ValidationError as error:
            return _refusal(error)
        return misaddressed(message, record, modes) or message

    return decoded


def misaddressed(message: Message, record: Record, modes: tuple[RunMode, ...]) -> Refused | None:
    """Return why a message is refused whose key is not its `symbol`, or whose run mode is none of `modes`; None when it is neither."""
    symbol: str = message.symbol  # type: ignore[attr-defined]
    if record.key != symbol.encode():
        return Refused(DeadLetterReason.KEY_MISMATCH, f"the key is {record.key!r:.{_SHOWN}}, the symbol {symbol!r}")
    if message.run_mode not in modes:
        wanted = " or ".join(sorted(modes))
        return Refused(DeadLetterReason.WRONG_RUN_MODE, f"the message is {message.run_mode.value!r}; this service takes {wanted}")
    return None


def decode(model: type[M], record: Record, modes: tuple[RunMode, ...], max_bytes: int) -> M | Refused:
    """Return what `decoder` makes of one record."""
    return decoder(model, modes, max_bytes)(record)


def _unreadable(record: Record) -> Refused:
    if isinstance(record, DecodedRecord) and record.problem is not None:
        return Refused(DeadLetterReason.MALFORMED, record.problem)
    return Refused(DeadLetterReason.EMPTY, "the record has no value")


def _refusal(error: ValidationError) -> Refused:
    problems = error.errors(include_url=False, include_context=False)
    first = problems[0]
    if first["type"] == "json_invalid":
        return Refused(DeadLetterReason.MALFORMED, f"not JSON: {first['msg']}")
    if not first["loc"] and first["type"] == "model_type":
        return Refused(DeadLetterReason.MALFORMED, f"a JSON {type(first['input']).__name__}; an object is wanted")
    for problem in problems:
        if problem["loc"] == ("schema_version",) and problem["type"] == "literal_error":
            return Refused(DeadLetterReason.UNSUPPORTED_VERSION, f"schema_version {problem['input']!r:.{_SHOWN}}; this service knows 1")
    problems_text = [f"{'.'.join(map(str, one['loc'])) or 'message'} = {one['input']!r:.{_SHOWN}}: {one['msg']}" for one in problems]
    return Refused(DeadLetterReason.INVALID, "; ".join(problems_text))
