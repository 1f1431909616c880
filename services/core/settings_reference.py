"""Writes what is generated from the settings: `docs/configuration.md` and an example settings file.

`python -m services.core.settings_reference` writes; `--check` compares and fails with a diff.
"""

from __future__ import annotations

import enum
import json
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from services.core.generated_files import write_or_check
from services.core.settings import Settings
from services.strategy.model import Strategy

PAGE: Final = Path("docs/configuration.md")
EXAMPLE: Final = Path("deploy/aquiline.example.toml")

_HEAD: Final = """# Configuration

<!-- Written by `python -m services.core.settings_reference` from `services/core/settings.py`, `fusion_settings.py`
and `services/strategy/values.py`; change those. -->

Every service reads the same settings. Of several sources the first that names a key wins:

1. options of the command line, where a command has one for the key;
2. variables: `AQUILINE_`, then the table and the key in capitals with two underscores between them, such as
   `AQUILINE_BUS__URL`; lists and tables as JSON;
3. secret files: one file a setting in the folder that `AQUILINE_SECRETS_DIR` names, such as `aquiline_bus__password`;
4. the TOML file that `--config` or `AQUILINE_CONFIG` names (`deploy/aquiline.example.toml` has every key with its default);
5. the folder of the strategy that `fusion.strategy` names. Of what it sets, sources 2 to 4 may override deadlines, permits and
   `epoch_slots` alone: everything else has one place, and a second one is refused ([strategies.md](strategies.md)).

Unknown keys and variables are refused. `aquiline config check` says what is wrong, `aquiline config show` what holds.
"""
_EXAMPLE_HEAD: Final = """# Every setting of Aquiline with its default.
# Copy it, keep what you change, and name it with `--config` or AQUILINE_CONFIG.
# Passwords belong into variables or secret files; docs/configuration.md says how.
# Written by `python -m services.core.settings_reference`.
"""
_PLAIN: Final = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    SecretStr: "secret",
    Strategy: "folder",
}
_LIMITS: Final[dict[type, tuple[str, str]]] = {
    annotated_types.Gt: (">", "gt"),
    annotated_types.Ge: ("≥", "ge"),
    annotated_types.Lt: ("<", "lt"),
    annotated_types.Le: ("≤", "le"),
}


def tables() -> Iterator[tuple[str, str, dict[str, FieldInfo]]]:
    """Yield each table of the settings: its name (empty for the keys outside tables), its docstring and its keys."""
    own = {name: field for name, field in Settings.model_fields.items() if not _is_table(field)}
    yield "", "Outside of tables.", own
    for name, field in Settings.model_fields.items():
        if _is_table(field):
            section: type[BaseModel] = typing.cast("type[BaseModel]", field.annotation)
            yield name, (section.__doc__ or "").strip(), section.model_fields


def _is_table(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def variable(table: str, key: str) -> str:
    """Return the name of the environment variable for a key."""
    return f"AQUILINE_{table}__{key}".upper() if table else f"AQUILINE_{key}".upper()


def page() -> str:
    """Return `docs/configuration.md`."""
    lines = [_HEAD]
    for table, about, keys in tables():
        lines.append(f"## {f'`[{table}]`' if table else 'Top level'}\n\n{about}\n")
        lines.append("| key | type | default | meaning | variable |\n|---|---|---|---|---|")
        lines += [
            f"| `{key}` | {_cell(_type(field))} | {_cell(_default_cell(field))} | {_cell(field.description or '')} "
            f"| `{variable(table, key)}` |"
            for key, field in keys.items()
        ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def example() -> str:
    """Return a TOML file with every key: those with a default commented in, the others commented out."""
    lines = [_EXAMPLE_HEAD]
    for table, about, keys in tables():
        if table:
            lines.append(f"# {about}\n[{table}]")
        for key, field in keys.items():
            value = _default(field)
            lines.append(f"# {' '.join((field.description or '').split())}")
            lines.append(f"# {key} =" if value is None else f"{key} = {to_toml(value)}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def to_toml(value: object) -> str:
    """Return `value` (of a setting) as TOML; raise TypeError for what TOML cannot hold."""
    match value:
        case enum.Enum():
            return to_toml(value.value)
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str() | Path():
            return json.dumps(str(value), ensure_ascii=False)
        case list() | tuple():
            return f"[{', '.join(to_toml(item) for item in value)}]"
        case dict():
            inner = ", ".join(f"{json.dumps(str(key))} = {to_toml(item)}" for key, item in value.items())
            return f"{{ {inner} }}" if inner else "{}"
        case _:
            raise TypeError(f"a {type(value).__name__} ({value!r}) cannot be written as TOML")


def _default(field: FieldInfo) -> Any:
    if field.annotation is Strategy:
        return None
    value = field.get_default(call_default_factory=True, validated_data={})
    return None if value is PydanticUndefined else value


def _default_cell(field: FieldInfo) -> str:
    if field.annotation is Strategy:
        return "the shipped one"
    value = _default(field)
    return "none" if value is None else f"`{to_toml(value)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _type(field: FieldInfo) -> str:
    return _name(field.annotation) + _limits(field.metadata)


def _limits(metadata: list[Any]) -> str:
    said = [f"{sign} {getattr(item, name):,g}" for item in metadata for of, (sign, name) in _LIMITS.items() if isinstance(item, of)]
    return f" {', '.join(said)}" if said else ""


def _name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        metadata = [item for outer in arguments[1:] for item in getattr(outer, "metadata", [outer])]
        return _name(arguments[0]) + _limits(metadata)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_name(argument) for argument in arguments if argument is not types.NoneType)
    if origin is list:
        return f"list of {_name(arguments[0])}"
    if origin is dict:
        return f"table of {_name(arguments[0])} to {_name(arguments[1])}"
    choices = arguments if origin is Literal else list(annotation) if issubclass(annotation, enum.Enum) else ()
    return " ".join(f"`{choice}`" for choice in choices) or _PLAIN[annotation]


def files() -> dict[Path, str]:
    """Return both files' texts by path."""
    return {PAGE: page(), EXAMPLE: example()}


def main(argv: list[str] | None = None) -> int:
    """Write or check; return the process' exit code."""
    return write_or_check(files(), argv, module="services.core.settings_reference", about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
