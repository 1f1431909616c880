"""Writes what is generated from the models: JSON Schemas, the AsyncAPI document and `docs/messages.md`.

`python -m schemas.generate` writes; `--check` compares and fails with a diff; `--publish` also makes today's contract the
published one, which is right only while nobody reads it yet.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from schemas.asyncapi import CONTRACT_VERSION, document
from schemas.examples import EXAMPLES
from schemas.messages_reference import markdown

ROOT: Final = Path(__file__).parents[1]
GENERATED: Final = Path("schemas/generated")
PUBLISHED: Final = Path(f"schemas/published/v{CONTRACT_VERSION}")


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema (draft 2020-12) of every message by its name."""
    return {
        model.__name__: {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:aquiline:v{CONTRACT_VERSION}:{model.__name__}",
            **model.model_json_schema(),
        }
        for model in sorted(EXAMPLES, key=lambda model: model.__name__)
    }


def files() -> dict[Path, str]:
    """Return the text of every generated file by its path below the root."""
    schemas = {GENERATED / f"{name}.json": _json(schema) for name, schema in json_schemas().items()}
    return {**schemas, GENERATED / "asyncapi.json": _json(document()), Path("docs/messages.md"): markdown()}


def drift(wanted: Mapping[Path, str], folder: Path, root: Path = ROOT) -> str:
    """Return a unified diff from the files on disk to `wanted`; files in `folder` that are not wanted count as well."""
    present = {path.relative_to(root) for path in (root / folder).glob("*.json")}
    return "".join(line for path in sorted(wanted.keys() | present) for line in _diff(path, _read(root / path), wanted.get(path, "")))


def _diff(path: Path, before: str, after: str) -> Iterable[str]:
    return difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), str(path), f"{path} (generated)")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def _write(wanted: Mapping[Path, str], folder: Path) -> None:
    for path in (ROOT / folder).glob("*.json"):
        if path.relative_to(ROOT) not in wanted:
            path.unlink()
    for path, text in wanted.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Write, check or publish; return the process' exit code."""
    parser = argparse.ArgumentParser(prog="python -m schemas.generate", description=__doc__)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="change nothing; exit 1 with a diff when a file is out of date")
    action.add_argument("--publish", action="store_true", help=f"also write {PUBLISHED}, giving up what was published before")
    arguments = parser.parse_args(argv)
    wanted = files()
    if arguments.check:
        difference = drift(wanted, GENERATED)
        if difference:
            sys.stderr.write(f"{difference}\ngenerated files are out of date with the models; run: python -m schemas.generate\n")
            return 1
        return 0
    _write(wanted, GENERATED)
    if arguments.publish:
        _write({PUBLISHED / f"{name}.json": _json(schema) for name, schema in json_schemas().items()}, PUBLISHED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
