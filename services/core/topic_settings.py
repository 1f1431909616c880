"""Topics as the user has them: names of their own on the broker, and formats other than JSON through a schema registry."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from schemas import RunMode, Topic
from services.core.table_inputs import GROUP, input_names
from services.strategy.section import Section

BrokerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$")]


def _installed(name: str) -> str:
    if name not in input_names():
        raise ValueError(f'{name!r} is no input that an installed package registers under "{GROUP}"')
    return name


InputName = Annotated[str, AfterValidator(_installed)]
"""An input of an installed package, which is its topic too."""
DecodedTopic = Literal[
    Topic.CANDLES,
    Topic.MARKET_FEATURES,
    Topic.VISION_FEATURES,
    Topic.NOTES,
    Topic.POSITIONS,
    Topic.INSTRUMENTS,
    Topic.INSTRUMENT_EVENTS,
]
"""Topics that users write."""
Decoder = Literal["json", "json_schema", "avro"]


class TopicSettings(Section):
    """Topics by your own names and in your own formats, those of inputs of your own among them. Outside `live` names are prefixed with the run mode, as Aquiline's own are."""

    names: dict[Topic | InputName, BrokerName] = Field(
        {},
        description="Your own names of topics, by Aquiline's: `market-features = \"desk.bars\"`. The others keep Aquiline's names, which `docs/messages.md` lists.",
    )

    decoders: dict[DecodedTopic | InputName, Decoder] = Field(
        {},
        description="How the records of a topic are read: `json`, or `avro` or `json_schema` in Confluent's wire format, with their schemas in the registry; `json` where not given.",
    )
    registry_url: Annotated[str, Field(pattern=r"^https?://[^/@\s]+(/[^\s]*)?$")] | None = Field(
        None, description="Address of the schema registry (Confluent's API), which `decoders` other than `json` need."
    )
    registry_username: str | None = Field(None, description="User name at the registry.")
    registry_password: SecretStr | None = Field(None, description="Password at the registry.")
    registry_ca_file: Path | None = Field(
        None, description="PEM file of the authority that signed the registry's certificate; the system's authorities when absent."
    )

    def on_broker(self, name: str) -> str:
        """Return the broker's name of the topic that Aquiline calls `name`, prefix of the run mode included."""
        prefix, bare = _split(name)
        return prefix + self._on_broker.get(bare, bare)

    def of_broker(self, name: str) -> str:
        """Return Aquiline's name of the topic that the broker calls `name`."""
        prefix, bare = _split(name)
        return prefix + self._of_broker.get(bare, bare)

    @cached_property
    def _on_broker(self) -> dict[str, str]:
        return {str(topic): name for topic, name in self.names.items()}

    @cached_property
    def _of_broker(self) -> dict[str, str]:
        return {name: str(topic) for topic, name in self.names.items()}

    @model_validator(mode="after")
    def _registered(self) -> Self:
        needing = sorted(topic for topic, kind in self.decoders.items() if kind != "json")
        if needing and self.registry_url is None:
            raise ValueError(f"topics.decoders has {', '.join(needing)} decoded with schemas; name the registry in topics.registry_url")
        return self

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        taken = {name: name for name in (*map(str, Topic), *input_names()) if name not in self.names}
        for topic, name in self.names.items():
            if (other := taken.setdefault(name, str(topic))) != topic:
                raise ValueError(f"topics.names gives {topic} the name {name!r}, which is that of {other}; give each topic its own")
            if _split(name)[0]:
                raise ValueError(
                    f"topics.names gives {topic} the name {name!r}: {name.partition('.')[0]!r} is the prefix of a run mode, which is added to it"
                )
        return self


def _split(name: str) -> tuple[str, str]:
    """Return the prefix of a run mode with its dot, or nothing, and the rest."""
    mode, dot, rest = name.partition(".")
    return (f"{mode}.", rest) if dot and mode in set(RunMode) else ("", name)
