"""What is generated from the models is up to date, deterministic, valid by its own standards, and says what each field means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from schemas import SPECS, Message, RunMode, topic_name
from schemas.asyncapi import document
from schemas.examples import DEAD_LETTER, EXAMPLES
from schemas.generate import GENERATED, drift, files, json_schemas, main

# The schema of AsyncAPI 3.0.0 from the npm package @asyncapi/specs 6.11.1 (Apache-2.0), without its prose and examples.
ASYNCAPI_SCHEMA = Path(__file__).with_name("asyncapi-3.0.0.json")

MESSAGES = sorted(EXAMPLES, key=lambda model: model.__name__)


def test_the_generated_files_are_those_that_the_models_give_today() -> None:
    assert drift(files(), GENERATED) == ""


def test_generating_twice_gives_the_same_bytes() -> None:
    assert files() == files()


def test_the_check_passes_when_all_is_up_to_date() -> None:
    assert main(["--check"]) == 0


def test_a_changed_and_a_left_over_file_are_told_as_a_diff(tmp_path: Path) -> None:
    wanted = files()
    for path, text in wanted.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / GENERATED / "Candle.json").write_text("{}\n")
    (tmp_path / GENERATED / "Gone.json").write_text("{}\n")
    told = drift(wanted, GENERATED, tmp_path)
    assert "--- schemas/generated/Candle.json" in told
    assert "--- schemas/generated/Gone.json" in told
    assert told.count("--- ") == 2


def test_every_message_of_every_topic_has_an_example() -> None:
    assert {model for spec in SPECS.values() for model in spec.messages} == set(EXAMPLES)


@pytest.mark.parametrize("model", MESSAGES, ids=lambda model: model.__name__)
def test_each_example_is_valid_for_its_model_and_for_its_json_schema(model: type[Message]) -> None:
    encoded = EXAMPLES[model].encode()
    assert model.decode(encoded) == EXAMPLES[model]
    schema = json_schemas()[model.__name__]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(encoded))


def _without_meaning(schema: dict[str, Any]) -> list[str]:
    tables = {"": schema, **{name: part for name, part in schema.get("$defs", {}).items() if "properties" in part}}
    return [
        f"{name}.{field}" for name, table in tables.items() for field, said in table["properties"].items() if not said.get("description")
    ]


@pytest.mark.parametrize("model", MESSAGES, ids=lambda model: model.__name__)
def test_each_field_says_what_it_means(model: type[Message]) -> None:
    assert _without_meaning(model.model_json_schema()) == []


def test_the_asyncapi_document_is_valid_by_asyncapis_own_schema() -> None:
    schema = json.loads(ASYNCAPI_SCHEMA.read_text())
    jsonschema.Draft7Validator(schema).validate(document())


def test_the_schema_of_asyncapi_refuses_a_wrong_document() -> None:
    schema = json.loads(ASYNCAPI_SCHEMA.read_text())
    wrong = document()
    wrong["operations"]["send-control"]["action"] = "shout"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate(wrong)


def _references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(_references, node.values()))
    if isinstance(node, list):
        return set().union(*map(_references, node))
    return set()


def test_every_reference_in_the_asyncapi_document_leads_somewhere() -> None:
    whole = document()
    for reference in _references(whole):
        at: Any = whole
        for step in reference.removeprefix("#/").split("/"):
            at = at[step]
        assert at


def test_the_asyncapi_document_has_every_topic_but_private_ones_with_its_key_and_its_name_in_each_run_mode() -> None:
    channels = document()["channels"]
    public = {topic: spec for topic, spec in SPECS.items() if not spec.private}
    assert set(channels) == {topic.value for topic in public}
    for topic, spec in public.items():
        channel = channels[topic.value]
        assert channel["x-key"] == spec.keyed_by
        assert channel["x-addresses"] == {mode.value: topic_name(topic, mode) for mode in RunMode}
        policy = channel["bindings"]["kafka"]["topicConfiguration"]["cleanup.policy"]
        assert policy == (["compact"] if spec.compacted else ["delete"])


def test_a_dead_letters_headers_fit_what_the_document_says_of_them() -> None:
    schema = document()["components"]["messages"]["DeadLetter"]["headers"]
    jsonschema.Draft7Validator(schema).validate({name: value.decode() for name, value in DEAD_LETTER.to_headers()})
