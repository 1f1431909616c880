"""The settings in force as TOML, with secrets masked, and the files that they name and that are not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from services.core.settings import Settings
from services.core.settings_reference import to_toml
from services.fusion.prompt.version import version_of
from services.strategy.model import Strategy
from services.strategy.section import Section

_MASK: Final = "**********"
_CREDENTIALS: Final = re.compile(r"://[^/@\s]+@")


def as_toml(settings: Settings) -> str:
    """Return `settings` as a TOML file; secrets are masked, and keys without a value left out."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    lines = [f"{key} = {_value(value)}" for key, value in values.items() if not isinstance(value, Section)]
    for name, section in values.items():
        if isinstance(section, Section):
            keys = [_line(key, value) for key, value in section if value is not None]
            lines += ["", f"[{name}]", *keys]
    return "\n".join(lines) + "\n"


def missing_files(settings: Settings) -> list[str]:
    """Return a sentence for each file that `settings` name and that does not exist."""
    return [f"{key} names {str(file)!r}, which is not a file" for key, file in _named_files(settings) if not file.is_file()]


def _line(key: str, value: object) -> str:
    if isinstance(value, Strategy):
        return f"# {key}: {version_of(value)}; its values are below, and `aquiline strategy show` prints what the model is shown"
    return f"{key} = {_value(value)}"


def _value(value: object) -> str:
    return to_toml(_MASK) if isinstance(value, SecretStr) else masked(to_toml(value))


def masked(text: str) -> str:
    """Return `text` without the credentials of addresses in it."""
    return _CREDENTIALS.sub(f"://{_MASK}@", text)


def _named_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    for name, section in settings:
        if isinstance(section, Section):
            for key, value in section:
                if key.endswith("_file") and isinstance(value, Path):
                    yield f"{name}.{key}", value
