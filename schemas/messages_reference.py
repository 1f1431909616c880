"""`docs/messages.md`: what each topic carries, for people, written from the models.

Types and limits come from the JSON Schemas, meanings from the fields' descriptions, units from the fields' names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from schemas.asyncapi import retention
from schemas.base import DECIMAL_PATTERN, Message, RunMode
from schemas.dead_letter import DeadLetterReason
from schemas.examples import DEAD_LETTER, EXAMPLES
from schemas.topics import SPECS, TopicSpec, topic_name

_HEAD: Final = """# Messages

<!-- Written by `python -m schemas.generate` from the models in `schemas/`; change those. -->

Every message is a JSON object in UTF-8. Times are whole milliseconds since 1970-01-01T00:00Z and end in `_ms`. Numbers are
finite. A field that has no value is left out. Within a `schema_version` a contract may only gain optional fields; a reader
ignores fields that it does not know, and counts them. The record's key is the field named below, as UTF-8.

The same as JSON Schema, one file a message, and as one AsyncAPI 3 document: `schemas/generated/`.
"""
_LATEST_TIME: Final = 32_503_680_000_000
_WHOLE: Final = {"_tokens": "tokens", "_bars": "bars", "_bar": "bar", "width": "pixels", "height": "pixels"}
_PRICES: Final = ("open", "high", "low", "close")


def markdown() -> str:
    """Return the whole page."""
    lines = [_HEAD]
    for spec in SPECS.values():
        if not spec.private:
            lines.extend(_topic(spec))
    return "\n".join(lines).rstrip() + "\n"


def _topic(spec: TopicSpec) -> Iterator[str]:
    names = ", ".join(f"`{topic_name(spec.topic, mode)}` ({mode.value})" for mode in RunMode)
    yield f"## {spec.topic}\n"
    yield f"{spec.description}\n"
    yield f"- Name: {names}."
    yield f"- Key: {spec.keyed_by if ' ' in spec.keyed_by else f'`{spec.keyed_by}`'}."
    yield f"- Partitions: {'as many as the other keyed topics' if spec.partitioned else 'one'}."
    yield f"- Kept {retention(spec)}.\n"
    for model in spec.messages:
        yield from _message(model)
    if not spec.messages:
        yield from _dead_letters()


def _message(model: type[Message]) -> Iterator[str]:
    schema = model.model_json_schema()
    parts = schema.get("$defs", {})
    yield f"### {model.__name__}\n"
    yield f"{schema['description']}\n"
    yield from _table(schema, parts)
    for name, part in parts.items():
        if part.get("type") == "object":
            yield f"`{name}`: {part['description']}\n"
            yield from _table(part, parts)
    yield "```json"
    text = orjson.dumps(EXAMPLES[model].model_dump(mode="json", exclude_none=True), option=orjson.OPT_INDENT_2)
    yield text.decode()
    yield "```\n"


def _table(schema: dict[str, Any], parts: dict[str, Any]) -> Iterator[str]:
    required = schema.get("required", [])
    yield "| field | type | unit | needed | meaning |"
    yield "|---|---|---|---|---|"
    for name, field in schema["properties"].items():
        needed = "yes" if name in required else "no"
        meaning = _cell(field.get("description", ""))
        yield f"| `{name}` | {_cell(_type(field, parts))} | {_unit(name, field)} | {needed} | {meaning} |"
    yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _type(field: dict[str, Any], parts: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[1]
        return _type(parts[name], parts) if "enum" in parts[name] else f"`{name}`"
    if "anyOf" in field:
        return " or ".join(_type(choice, parts) for choice in field["anyOf"] if choice.get("type") != "null")
    if "const" in field or "enum" in field:
        return " ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    return _container(field, parts) + _limits(field)


def _container(field: dict[str, Any], parts: dict[str, Any]) -> str:
    match field["type"]:
        case "array":
            return f"list of {_type(field['items'], parts)}"
        case "object":
            by_name = field.get("patternProperties", {"": field.get("additionalProperties")})
            return " or ".join(f"{_type(of, parts)} by name{f' (`{name}`)' if name else ''}" for name, of in by_name.items())
        case plain:
            return str(field.get("format", plain))


def _limits(field: dict[str, Any]) -> str:
    limits = []
    if field.get("maximum") != _LATEST_TIME:
        words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
        limits += [f"{sign} {field[word]:g}" for word, sign in words.items() if word in field]
    if "maxLength" in field:
        limits.append(f"{field.get('minLength', 0)} to {field['maxLength']} characters")
    if "maxItems" in field and field["maxItems"] == field.get("minItems"):
        limits.append(f"exactly {field['maxItems']}")
    elif "maxItems" in field or "maxProperties" in field:
        limits.append(f"at most {field.get('maxItems', field.get('maxProperties'))}")
    if field.get("pattern") == DECIMAL_PATTERN:
        limits.append("decimal")
    elif "pattern" in field:
        limits.append(f"`{field['pattern']}`")
    return f" ({', '.join(limits)})" if limits else ""


def _unit(name: str, field: dict[str, Any]) -> str:
    choices = [field, *field.get("anyOf", [])]
    if name.endswith("_ms"):
        return "ms since 1970" if any(choice.get("maximum") == _LATEST_TIME for choice in choices) else "ms"
    if name in _PRICES or any(choice.get("pattern") == DECIMAL_PATTERN for choice in choices):
        return "currency"
    return next((unit for ending, unit in _WHOLE.items() if name.endswith(ending)), "")


def _dead_letters() -> Iterator[str]:
    yield "### Dead letter\n"
    yield "The value is the original one, byte for byte, and so is the key. These headers, UTF-8 text, say why:\n"
    yield "| header | example |"
    yield "|---|---|"
    for name, value in DEAD_LETTER.to_headers():
        yield f"| `{name}` | {_cell(value.decode())} |"
    yield f"\nReasons: {', '.join(f'`{reason.value}`' for reason in DeadLetterReason)}."
