"""Confluent's wire format: a zero byte, the schema's id in four bytes, and the message as its schema has it. Pure."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import fastavro
import orjson

from services.core.topic_settings import Decoder

_HEADER: Final = struct.Struct(">bI")
_MAGIC: Final = 0


class WireFormatError(ValueError):
    """A record cannot be decoded; the text says why, in a sentence."""


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """A schema of the registry, ready to read records with."""

    schema_id: int
    kind: Decoder
    avro: Any = None
    """As fastavro parses it."""

    @classmethod
    def of(cls, schema_id: int, answer: Mapping[str, Any]) -> WriterSchema:
        """Return the schema in a registry's answer; raise WireFormatError when it cannot be used."""
        kind, text = answer.get("schemaType", "AVRO"), answer.get("schema")
        if answer.get("references"):
            raise WireFormatError(f"schema {schema_id} refers to other schemas, which is not supported; register it whole")
        if kind == "JSON":
            return cls(schema_id, "json_schema")
        if kind != "AVRO":
            raise WireFormatError(f"schema {schema_id} is of type {kind!r}; AVRO and JSON are read")
        try:
            return cls(schema_id, "avro", fastavro.parse_schema(orjson.loads(str(text))))
        except Exception as error:  # fastavro raises whatever it stumbles over
            raise WireFormatError(f"schema {schema_id} is no Avro schema: {type(error).__name__}: {error}") from error


def schema_id_of(value: bytes) -> int:
    """Return the id in a record's header; raise WireFormatError when it has none."""
    if len(value) < _HEADER.size or value[0] != _MAGIC:
        raise WireFormatError("the value does not begin with a zero byte and a schema id, as Confluent's wire format does")
    schema_id: int = _HEADER.unpack_from(value)[1]
    return schema_id


def to_json(value: bytes, schema: WriterSchema, wanted: Decoder) -> bytes:
    """Return a record's message as UTF-8 JSON; raise WireFormatError when it is not as `schema` has it, or not of the `wanted` kind.

    Of Avro, null is left out, a timestamp becomes milliseconds since 1970, a decimal a decimal string and a UUID its text.
    """
    if schema.kind != wanted:
        raise WireFormatError(f"schema {schema.schema_id} is read as {schema.kind!r}, and topics.decoders has {wanted!r}")
    if schema.kind == "json_schema":
        return value[_HEADER.size :]
    rest = io.BytesIO(value)
    rest.seek(_HEADER.size)
    try:
        message = fastavro.schemaless_reader(rest, schema.avro, None)
    except Exception as error:  # as above
        raise WireFormatError(f"the value is not as schema {schema.schema_id} has it: {type(error).__name__}: {error}") from error
    if rest.read(1):
        raise WireFormatError(f"the value goes on after what schema {schema.schema_id} has")
    try:
        return orjson.dumps(_without_nulls(message), default=_plain)
    except TypeError as error:
        raise WireFormatError(f"the value cannot be written as JSON: {error}") from error


def _without_nulls(value: Any) -> Any:
    match value:
        case dict():
            return {name: _without_nulls(one) for name, one in value.items() if one is not None}
        case list():
            return [_without_nulls(one) for one in value]
        case datetime():  # orjson would write it as text
            at = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
            return round(at.timestamp() * 1000)
        case _:
            return value


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return f"{value:f}"
        case UUID():
            return str(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no form in JSON")
