"""Inputs that workers read as tables, as packages register them: entry points of the group `aquiline.inputs`, Aquiline's own among them.

An entry point's name is the input's: its topic in run mode `live`, and its key in an as-of. It names a
`TableInput` (`services.fusion.inputs`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Protocol, cast

from schemas import SPECS, Message, Topic, TopicSpec
from services.core.errors import ServiceError
from services.strategy.folder import StrategyError
from services.strategy.rivals import twice

GROUP: Final = "aquiline.inputs"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_TAKEN: Final = frozenset({"market", "vision"})
"""Names that an as-of has for other inputs."""
_DISTRIBUTION: Final = "aquiline"


class InputError(ServiceError):
    """An installed input cannot be used; the text names it and says what to correct."""


class InputClass(Protocol):
    """What an entry point is: a class, called with the worker's settings."""

    message: type[Message]
    compacted: bool

    @classmethod
    def samples(cls, moment: Any, /) -> Any:
        """Return made-up messages."""
        ...

    def __call__(self, settings: Any, /) -> Any:
        """Return the input, empty."""
        ...


def input_names() -> frozenset[str]:
    """Return the names of all installed inputs, without importing them."""
    return frozenset(_entries())


@cache
def input_classes() -> dict[str, InputClass]:
    """Return every installed input by its name; raise InputError when one cannot be imported or is not as it must be."""
    for name, rivals in twice(GROUP).items():
        raise InputError(f"the input {name} is registered by {rivals}; uninstall all but one, or give them other names")
    return {name: _checked(name, entry) for name, entry in sorted(_entries().items())}


@cache
def table_specs() -> dict[str, TopicSpec]:
    """Return how the topic of each input is stored, by the input's name; raise InputError."""
    own = {str(topic): spec for topic, spec in SPECS.items()}
    return {name: own.get(name) or _spec(name, one) for name, one in input_classes().items()}


def topic_specs() -> dict[str, TopicSpec]:
    """Return how every topic is stored, those of installed inputs among them; raise InputError."""
    return {**{str(topic): spec for topic, spec in SPECS.items()}, **table_specs()}


def check_shown(names: Iterable[str]) -> None:
    """Raise StrategyError when a strategy shows an input that no installed package registers."""
    if unknown := [name for name in names if name not in _entries()]:
        raise StrategyError(
            f'inputs names {unknown[0]!r}, which no installed package registers under "{GROUP}" (registered: '
            f"{', '.join(sorted(_entries())) or 'none'}); install the package that has it"
        )


def input_versions(names: Iterable[str]) -> list[str]:
    """Return each named input of another package with that package's version: other code is another prompt version."""
    found = []
    for name in names:
        entry = _entries().get(name)
        package = "not installed" if entry is None or entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
        if entry is None or entry.dist is None or entry.dist.name != _DISTRIBUTION:
            found.append(f"input:{name} of {package}")
    return found


def forget() -> None:
    """Look at what is installed anew when it is next asked for."""
    for cached in (_entries, input_classes, table_specs):
        cached.cache_clear()


@cache
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _checked(name: str, entry: EntryPoint) -> InputClass:
    try:
        found: Any = entry.load()
    except (Exception, SystemExit) as error:
        raise InputError(f"the input {name} ({entry.value}) cannot be imported: {type(error).__name__}: {error}") from error
    where = f"the input {name} ({entry.value})"
    if not _NAME.fullmatch(name) or name in _TAKEN or (name in set(Topic) and _foreign(entry)):
        raise InputError(
            f"{where} needs another name: small letters, digits and underscores, at most 32, a letter first, and none of Aquiline's own"
        )
    message = getattr(found, "message", None)
    if not isinstance(found, type) or not isinstance(message, type) or not issubclass(message, Message):
        raise InputError(
            f"{where} is no class with a message; derive it from services.fusion.inputs.table_input.TableInput, and set message"
        )
    if absent := sorted({"symbol", "ts_ms"} - message.model_fields.keys()):
        raise InputError(f"{where}: its message {message.__name__} has no {' and no '.join(absent)}; add it")
    if left := sorted(getattr(found, "__abstractmethods__", ())):
        raise InputError(f"{where} does not define {', '.join(left)}; add it")
    return cast("InputClass", found)


def _foreign(entry: EntryPoint) -> bool:
    return entry.dist is None or entry.dist.name != _DISTRIBUTION


def _spec(name: str, found: InputClass) -> TopicSpec:
    described = (found.__doc__ or "").strip().partition("\n")[0]
    return TopicSpec(name, (found.message,), "symbol", compacted=found.compacted, partitioned=False, description=described)
