"""The AsyncAPI 3 document: every topic as a channel, with its key, its messages and how it is kept.

Built from `schemas.topics.SPECS` and the models alone, so that it cannot say anything else than they do.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from schemas.base import Message, RunMode
from schemas.dead_letter import PREFIX, DeadLetter, DeadLetterReason
from schemas.examples import DEAD_LETTER, EXAMPLES
from schemas.topics import SPECS, Topic, TopicSpec, topic_name

CONTRACT_VERSION: Final = 1

_BINDING: Final = "0.5.0"
_SENDS: Final = (
    Topic.MARKET_FEATURES,
    Topic.VISION_FEATURES,
    Topic.CONTROL,
    Topic.STRATEGY_SIGNALS,
    Topic.SIGNAL_AUDIT,
    Topic.SIGNAL_OUTCOMES,
    Topic.DEAD_LETTERS,
)
_RECEIVES: Final = (
    Topic.CANDLES,
    Topic.MARKET_FEATURES,
    Topic.VISION_FEATURES,
    Topic.NOTES,
    Topic.POSITIONS,
    Topic.INSTRUMENTS,
    Topic.INSTRUMENT_EVENTS,
    Topic.CONTROL,
)
_DEAD_LETTER: Final = "DeadLetter"


def retention(spec: TopicSpec) -> str:
    """Return in words how long the records of a topic are to be kept."""
    if spec.compacted:
        return "compacted: the last record of each key is kept for ever"
    match spec.topic:
        case Topic.INSTRUMENT_EVENTS:
            return "for ever: a book that is rebuilt needs every split since its first bar"
        case Topic.CANDLES | Topic.MARKET_FEATURES:
            return "longer than the bars of a prompt's slowest interval span, or books cannot be rebuilt; 30 days are a good start"
        case Topic.NOTES:
            return "for 90 days: blackouts may be announced 60 days ahead, and prompts of that time can be rebuilt"
        case Topic.SIGNAL_AUDIT:
            return "as long as decisions must be accounted for"
        case _:
            return "longer than the longest time that their readers may be down; 7 days are a good start"


def document() -> dict[str, Any]:
    """Return the AsyncAPI document as plain data."""
    models = sorted(EXAMPLES, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template="#/components/schemas/{model}")
    messages = {model.__name__: _message(model) for model in models}
    messages[_DEAD_LETTER] = _dead_letter()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Aquiline",
            "version": str(CONTRACT_VERSION),
            "description": (
                "Market and vision features in, strategy signals out. A channel's address is its topic's name in run mode "
                "`live`; `x-addresses` has the names in the others."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {str(spec.topic): _channel(spec) for spec in SPECS.values() if not spec.private},
        "operations": {
            **{f"receive-{topic.value}": _operation("receive", topic) for topic in _RECEIVES},
            **{f"send-{topic.value}": _operation("send", topic) for topic in _SENDS},
        },
        "components": {"messages": messages, "schemas": definitions["$defs"]},
    }


def _channel(spec: TopicSpec) -> dict[str, Any]:
    names = [model.__name__ for model in spec.messages] or [_DEAD_LETTER]
    partitions = "as many partitions as the other keyed topics" if spec.partitioned else "one partition"
    return {
        "address": topic_name(spec.topic, RunMode.LIVE),
        "title": str(spec.topic),
        "description": f"{spec.description} Keyed by {spec.keyed_by}; {partitions}. Kept {retention(spec)}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "kafka": {
                "topicConfiguration": {"cleanup.policy": ["compact" if spec.compacted else "delete"]},
                "bindingVersion": _BINDING,
            }
        },
        "x-addresses": {mode.value: topic_name(spec.topic, mode) for mode in RunMode},
        "x-key": spec.keyed_by,
        "x-retention": retention(spec),
    }


def _operation(action: str, topic: Topic) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{topic.value}"}}


def _key(model: type[Message]) -> str:
    return next(spec.keyed_by for spec in SPECS.values() if model in spec.messages)


def _message(model: type[Message]) -> dict[str, Any]:
    key = _key(model)
    return {
        "name": model.__name__,
        "title": model.__name__,
        "summary": (model.__doc__ or "").strip(),
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": f"The message's `{key}`, as UTF-8."},
                "bindingVersion": _BINDING,
            }
        },
        "examples": [{"name": "example", "payload": EXAMPLES[model].model_dump(mode="json", exclude_none=True)}],
    }


def _dead_letter() -> dict[str, Any]:
    texts = {name: value.decode() for name, value in DEAD_LETTER.to_headers()}
    properties: dict[str, Any] = {PREFIX + field.name: {"type": "string"} for field in fields(DeadLetter)}
    properties[PREFIX + "reason"]["enum"] = [reason.value for reason in DeadLetterReason]
    return {
        "name": _DEAD_LETTER,
        "title": _DEAD_LETTER,
        "summary": (DeadLetter.__doc__ or "").strip(),
        "contentType": "application/octet-stream",
        "headers": {"type": "object", "properties": properties, "required": sorted(properties)},
        "payload": {"description": "The original bytes, whatever they were."},
        "bindings": {"kafka": {"key": {"type": "string", "description": "The original key, if any."}, "bindingVersion": _BINDING}},
        "examples": [{"name": "example", "headers": texts}],
    }
