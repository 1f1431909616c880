"""A published contract may gain optional fields and nothing else; each other kind of change is planted here and refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.compatibility import breaking_changes
from schemas.generate import PUBLISHED, ROOT, json_schemas

Schema = dict[str, Any]

PUBLISHED_FILES = sorted((ROOT / PUBLISHED).glob("*.json"))


def _load(file: Path) -> Schema:
    schema: Schema = json.loads(file.read_text())
    return schema


@pytest.mark.parametrize("file", PUBLISHED_FILES, ids=lambda file: file.stem)
def test_todays_contract_breaks_nobody_who_relies_on_the_published_one(file: Path) -> None:
    current = json_schemas()
    assert file.stem in current, f"{file.stem} was published and is gone"
    assert breaking_changes(_load(file), current[file.stem]) == []


def test_every_message_is_published() -> None:
    assert {file.stem for file in PUBLISHED_FILES} == set(json_schemas())


def _remove(schema: Schema) -> None:
    del schema["properties"]["ts_decided_ms"]
    schema["required"].remove("ts_decided_ms")


def _remove_optional(schema: Schema) -> None:
    del schema["properties"]["stop"]


def _rename(schema: Schema) -> None:
    schema["properties"]["tgt"] = schema["properties"].pop("target")


def _new_required(schema: Schema) -> None:
    schema["properties"]["venue"] = {"type": "string"}
    schema["required"].append("venue")


def _became_required(schema: Schema) -> None:
    schema["required"].append("conviction")


def _became_optional(schema: Schema) -> None:
    schema["required"].remove("currency")


def _narrow_type(schema: Schema) -> None:
    schema["properties"]["latency_ms"]["additionalProperties"]["type"] = "integer"


def _no_longer_null(schema: Schema) -> None:
    schema["properties"]["stop"]["anyOf"].pop()


def _narrow_enum(schema: Schema) -> None:
    schema["properties"]["vision"]["enum"].remove("stale")


def _widen_enum(schema: Schema) -> None:
    schema["properties"]["vision"]["enum"].append("unknown")


def _narrow_enum_behind_a_reference(schema: Schema) -> None:
    schema["$defs"]["Action"]["enum"].remove("exit")


def _narrow_range(schema: Schema) -> None:
    schema["properties"]["ts_decided_ms"]["maximum"] -= 1


def _narrow_range_of_an_optional_field(schema: Schema) -> None:
    schema["properties"]["horizon_bars"]["anyOf"][0]["maximum"] = 100


def _new_limit(schema: Schema) -> None:
    schema["properties"]["prompt_tokens"]["maximum"] = 100


def _shorter(schema: Schema) -> None:
    schema["properties"]["model"]["maxLength"] = 10


def _longer(schema: Schema) -> None:
    schema["properties"]["model"]["maxLength"] = 1000


def _pattern(schema: Schema) -> None:
    schema["properties"]["currency"]["pattern"] = "^USD$"


def _nested_field(schema: Schema) -> None:
    schema["$defs"]["OffsetRef"]["required"].append("leader_epoch")
    schema["$defs"]["OffsetRef"]["properties"]["leader_epoch"] = {"type": "integer"}


def _default(schema: Schema) -> None:
    schema["properties"]["kind"]["default"] = "cancel"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_remove, ["ts_decided_ms: the field is gone"]),
        (_remove_optional, ["stop: the field is gone"]),
        (_rename, ["target: the field is gone"]),
        (_new_required, ["venue: a new field is required"]),
        (_became_required, ["conviction: the field became required"]),
        (_became_optional, ["currency: the field became optional, and readers rely on it"]),
        (_narrow_type, ["latency_ms.additionalProperties: type was changed: 'number' to 'integer'"]),
        (_no_longer_null, ["stop: anyOf was changed"]),
        (_narrow_enum, ["vision: enum was narrowed: ['fresh', 'stale', 'absent'] to ['fresh', 'absent']"]),
        (_widen_enum, ["vision: enum was widened"]),
        (_narrow_enum_behind_a_reference, ["action: enum was narrowed"]),
        (_narrow_range, ["ts_decided_ms: maximum was narrowed: 32503680000000 to 32503679999999"]),
        (_narrow_range_of_an_optional_field, ["horizon_bars: maximum was narrowed: 1000 to 100"]),
        (_new_limit, ["prompt_tokens: maximum was narrowed: None to 100"]),
        (_shorter, ["model: maxLength was narrowed: 256 to 10"]),
        (_longer, ["model: maxLength was widened: 256 to 1000"]),
        (_pattern, ["currency: pattern was changed"]),
        (_default, ["kind: default was changed"]),
    ],
)
def test_a_planted_change_is_refused(change: Callable[[Schema], None], told: list[str]) -> None:
    published = _load(ROOT / PUBLISHED / "Signal.json")
    current = copy.deepcopy(published)
    change(current)
    found = breaking_changes(published, current)
    assert len(found) == len(told)
    for sentence, expected in zip(found, told, strict=True):
        assert sentence.startswith(expected)


def test_a_change_inside_a_part_is_refused_wherever_the_part_is_used() -> None:
    published = _load(ROOT / PUBLISHED / "Signal.json")
    current = copy.deepcopy(published)
    _nested_field(current)
    found = breaking_changes(published, current)
    assert {sentence.split(": ")[0] for sentence in found} == {"as_of.market.leader_epoch", "as_of.vision.leader_epoch"}


def test_a_new_optional_field_and_better_words_are_welcome() -> None:
    published = _load(ROOT / PUBLISHED / "Signal.json")
    current = copy.deepcopy(published)
    current["properties"]["venue"] = {"type": "string", "default": ""}
    current["properties"]["currency"]["description"] = "Said better."
    current["$defs"]["Action"]["description"] = "Said better, too."
    assert breaking_changes(published, current) == []
