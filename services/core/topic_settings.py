"""Names of topics on the broker: a topic may have a name of the user's own, and Aquiline calls it by its own everywhere else."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas import RunMode, Topic
from services.strategy.section import Section

BrokerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$")]


class TopicSettings(Section):
    """Topics by your own names. Outside `live` they are prefixed with the run mode, as Aquiline's own names are."""

    names: dict[Topic, BrokerName] = Field(
        {},
        description="Your own names of topics, by Aquiline's: `market-features = \"desk.bars\"`. The others keep Aquiline's names, which `docs/messages.md` lists.",
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
        return {topic.value: name for topic, name in self.names.items()}

    @cached_property
    def _of_broker(self) -> dict[str, str]:
        return {name: topic.value for topic, name in self.names.items()}

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        taken = {topic.value: topic for topic in Topic if topic not in self.names}
        for topic, name in self.names.items():
            if (other := taken.setdefault(name, topic)) is not topic:
                raise ValueError(
                    f"topics.names gives {topic.value} the name {name!r}, which is that of {other.value}; give each topic its own"
                )
            if _split(name)[0]:
                raise ValueError(
                    f"topics.names gives {topic.value} the name {name!r}: {name.partition('.')[0]!r} is the prefix of a run mode, which is added to it"
                )
        return self


def _split(name: str) -> tuple[str, str]:
    """Return the prefix of a run mode with its dot, or nothing, and the rest."""
    mode, dot, rest = name.partition(".")
    return (f"{mode}.", rest) if dot and mode in set(RunMode) else ("", name)
