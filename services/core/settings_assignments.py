"""Settings given as `section.key=value`, as the option `--set` of several commands takes them."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any

import orjson

from services.core.settings import SettingsError


def assign(sections: MutableMapping[str, dict[str, Any]], assignments: Iterable[str]) -> None:
    """Put each assignment into `sections`, over what they hold. A value is JSON where it parses as JSON, else text.

    Raises SettingsError for an assignment of another form.
    """
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (equals and dot and name):
            raise SettingsError(f"--set {assignment!r}: expected section.key=value, such as fusion.permits=3")
        sections.setdefault(section, {})[name] = _value(value)


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
