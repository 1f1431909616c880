"""A strategy's folder: `strategy.toml` and `instructions.md`, read into a `Strategy` or refused with a sentence per mistake."""

from __future__ import annotations

import difflib
import re
import shutil
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from services.strategy.catalogue import BarColumn
from services.strategy.model import NAME_PATTERN, TABLES, Fact, FeatureColumn, Strategy

TOML: Final = "strategy.toml"
INSTRUCTIONS: Final = "instructions.md"
FEATURES: Final = "features.py"
"""Features of the strategy's own: run by `services/market`, never by the worker, and no part of the strategy's hash."""
SHIPPED: Final = Path(__file__).parent / "default"
"""The folder of the strategy that ships."""
TEMPLATE: Final = Path(__file__).parent / "template"
"""What a new strategy starts from: the shipped one with a feature of its own."""
_MAX_BYTES: Final = 200_000


class StrategyError(ValueError):
    """A strategy's folder cannot be used; the text names file, key, value and what was expected, a sentence per mistake."""


def read(folder: Path) -> Strategy:
    """Return the strategy in `folder`; raise StrategyError."""
    if folder.name in {TOML, INSTRUCTIONS, FEATURES} and folder.is_file():
        raise StrategyError(f"{folder} is a file of a strategy; name its folder, {folder.parent}")
    if not folder.is_dir():
        raise StrategyError(f"{folder} is not a folder; `aquiline strategy new {folder.name or 'NAME'}` makes one")
    toml_file, text_file = folder / TOML, folder / INSTRUCTIONS
    try:
        values = tomllib.loads(_text(toml_file))
    except tomllib.TOMLDecodeError as error:
        raise StrategyError(f"{toml_file} is not TOML: {error}") from error
    if "instructions" in values:
        raise StrategyError(f"{toml_file}: instructions stand in {text_file}, not here; remove the key")
    try:
        return Strategy.model_validate(values | {"instructions": _text(text_file)})
    except ValidationError as error:
        raise StrategyError("; ".join(_sentences(error, toml_file, text_file))) from error


@cache
def shipped() -> Strategy:
    """Return the strategy that ships."""
    return read(SHIPPED)


def new(folder: Path, name: str) -> None:
    """Write a new strategy of that name into the new folder `folder`; raise StrategyError."""
    if folder.exists():
        raise StrategyError(f"{folder} exists already; choose another name, or delete it")
    if not re.fullmatch(NAME_PATTERN, name):
        raise StrategyError(
            f"the name {name!r} is not of the form my-strategy: small letters, digits and hyphens, at most 32, a letter first"
        )
    try:
        folder.mkdir(parents=True)
        for file in sorted(TEMPLATE.iterdir()):
            if file.is_file():
                (folder / file.name).write_text(file.read_text(encoding="utf-8").replace('"NAME"', f'"{name}"'), encoding="utf-8")
    except OSError as error:
        raise StrategyError(f"{folder} cannot be written: {error.strerror}; choose a folder that you may write to") from error


def copy(folder: Path, to: Path) -> None:
    """Copy what defines the strategy in `folder` to the new folder `to`."""
    to.mkdir(parents=True)
    for name in (TOML, INSTRUCTIONS):
        shutil.copyfile(folder / name, to / name)


def _text(file: Path) -> str:
    try:
        # Anything else than a file, such as a named pipe, may never end.
        if file.exists() and not file.is_file():
            raise StrategyError(f"{file} is not a file; a strategy is a folder with the text files {TOML} and {INSTRUCTIONS}")
        if file.stat().st_size > _MAX_BYTES:
            raise StrategyError(f"{file} has {file.stat().st_size:,} bytes; at most {_MAX_BYTES:,} are read")
        # Some editors begin a text file with a byte order mark.
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise StrategyError(f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise StrategyError(f"{file} cannot be read: {error.strerror}; a strategy is a folder with {TOML} and {INSTRUCTIONS}") from error


def _sentences(error: ValidationError, toml_file: Path, text_file: Path) -> list[str]:
    found: dict[str, str] = {}
    for item in error.errors(include_url=False):
        loc = tuple(part for part in item["loc"] if part not in {"FeatureColumn", _LITERAL})
        where = ".".join(str(part) for part in loc)
        file = text_file if where == "instructions" else toml_file
        message = re.sub(r"^Value error, ", "", item["msg"])
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(where, _keys(), n=1)
            sentence = f"{file}: {where} is no key of a strategy{f'; did you mean {near[0]}?' if near else ''}"
        elif item["type"] == "missing":
            sentence = f"{file}: {where} is missing"
        elif item["type"] == "literal_error" and loc[0] == "columns" and isinstance(item["input"], str):
            near = difflib.get_close_matches(item["input"], _COLUMNS, n=1)
            sentence = (
                f"{file}: {where} = {item['input']!r}: no such column{f', did you mean {near[0]!r}?' if near else ';'} expected one of "
                f"{', '.join(map(repr, _COLUMNS))}, or a feature of your own as a table with feature, label and unit"
            )
        elif item["type"] == "string_type" and isinstance(item["input"], int | float):
            sentence = f'{file}: {where} = {item["input"]!r} is a number; write it in quotes: {where} = "{item["input"]}"'
        elif where == "instructions" or not where or isinstance(item["input"], dict):
            sentence = f"{file}: {f'{where}: ' if where and where != 'instructions' else ''}{message}"
        else:
            sentence = f"{file}: {where} = {item['input']!r}: {message}"
        # A column that is neither a name of the catalogue nor a table is told of both.
        found.setdefault(f"{file}:{where}", sentence)
    sentences = list(found.values())
    more = len(sentences) - _MOST_SENTENCES
    return sentences if more <= 0 else [*sentences[:_MOST_SENTENCES], f"{more} more of the kind"]


_COLUMNS: Final = get_args(BarColumn)
_LITERAL: Final = f"literal[{','.join(map(repr, _COLUMNS))}]"
_MOST_SENTENCES: Final = 8


def _keys() -> list[str]:
    names = [name for name in Strategy.model_fields if name != "instructions"]
    for table in TABLES:
        section: Any = Strategy.model_fields[table].annotation
        assert issubclass(section, BaseModel)  # noqa: S101 - TABLES names tables
        names += [f"{table}.{name}" for name in section.model_fields]
    return [*names, *(f"columns.{name}" for name in FeatureColumn.model_fields), *(f"facts.{name}" for name in Fact.model_fields)]
