"""An audit record tells whether it is still as it was written: any byte of it that is changed shows."""

from __future__ import annotations

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas import AuditRecord, is_intact
from schemas.examples import EXAMPLES

WRITTEN = EXAMPLES[AuditRecord].encode()


def test_a_record_is_intact_as_it_was_written_and_when_another_program_wrote_it_with_spaces_and_in_another_order() -> None:
    assert is_intact(WRITTEN)
    again = dict(reversed(orjson.loads(WRITTEN).items()))
    assert is_intact(orjson.dumps(again, option=orjson.OPT_INDENT_2))


def test_what_a_newer_version_added_is_under_the_checksum_too() -> None:
    newer = AuditRecord.decode(WRITTEN[:-1] + b',"mood":"calm"}').encode()
    assert is_intact(newer)
    assert not is_intact(newer.replace(b"calm", b"wild"))


def test_a_record_without_its_checksum_is_not_intact() -> None:
    assert not is_intact(WRITTEN.replace(b'"checksum"', b'"checksun"'))


@settings(max_examples=1_000, deadline=None)
@given(place=st.integers(0, len(WRITTEN) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_seen(place: int, bit: int) -> None:
    flipped = bytearray(WRITTEN)
    flipped[place] ^= 1 << bit
    value = bytes(flipped)
    try:
        AuditRecord.decode(value)
        intact = is_intact(value)
    except (ValidationError, orjson.JSONDecodeError):
        return
    assert not intact or orjson.loads(value) == orjson.loads(WRITTEN)


def test_the_total_is_the_sum_of_the_stages() -> None:
    record = EXAMPLES[AuditRecord].model_copy(update={"latency_ms": {"fold": 1.0, "queue": 2.0, "decision": 40.0, "unknown": 7.0}})
    assert isinstance(record, AuditRecord)
    assert record.total_ms == 43.0
