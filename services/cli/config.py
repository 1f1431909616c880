"""`aquiline config`: says what is wrong with the settings, or shows those that hold, secrets masked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import SecretStr

from services.core.settings import Section, Settings, SettingsError, load
from services.core.settings_reference import to_toml

app = typer.Typer(help="Check settings, or show those that hold.", no_args_is_help=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file in TOML; the one that AQUILINE_CONFIG names when not given."),
]

_MASK: Final = "**********"
_CREDENTIALS: Final = re.compile(r"://[^/@\s]+@")


@app.command()
def check(config: ConfigOption = None) -> None:
    """Read the settings as a service would, and say what is wrong."""
    settings = load(config)
    if missing := missing_files(settings):
        raise SettingsError("; ".join(missing))
    typer.echo(
        f"The settings are fine: run mode {settings.run_mode.value}, bus {settings.bus.url}, redis {settings.redis.url}, "
        f"engine {settings.engine.kind} at {_masked(', '.join(settings.engine.urls))}."
    )


@app.command()
def show(config: ConfigOption = None) -> None:
    """Print the settings that hold, from all sources, as TOML; secrets are masked."""
    typer.echo(as_toml(load(config)), nl=False)


def as_toml(settings: Settings) -> str:
    """Return `settings` as a TOML file; secrets are masked, and keys without a value left out."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    lines = [f"{key} = {_value(value)}" for key, value in values.items() if not isinstance(value, Section)]
    for name, section in values.items():
        if isinstance(section, Section):
            keys = [f"{key} = {_value(value)}" for key, value in section if value is not None]
            lines += ["", f"[{name}]", *keys]
    return "\n".join(lines) + "\n"


def missing_files(settings: Settings) -> list[str]:
    """Return a sentence for each file that `settings` name and that is not there."""
    return [f"{key} names {str(file)!r}, which is not a file" for key, file in _named_files(settings) if not file.is_file()]


def _value(value: object) -> str:
    return to_toml(_MASK) if isinstance(value, SecretStr) else _masked(to_toml(value))


def _masked(text: str) -> str:
    return _CREDENTIALS.sub(f"://{_MASK}@", text)


def _named_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    for name, section in settings:
        if isinstance(section, Section):
            for key, value in section:
                if key.endswith("_file") and isinstance(value, Path):
                    yield f"{name}.{key}", value
