"""Makes inputs that are registered as an installed package's are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest

from schemas import topic_name
from services.core import table_inputs
from services.core.bus import Record
from tests.unit.fusion.build import MODE, START, SYMBOL

SOURCE = '''
from schemas import Message, Symbol
from services.fusion.inputs.table_input import LatestBySymbol, TableInput
from services.fusion.state.rejection import Rejection


class Told(Message):
    symbol: Symbol
    ts_ms: int
    text: str


class Shown(LatestBySymbol[Told]):
    """Texts of the desk."""

    message = Told

    def lines(self, moment, tokens):
        told = self.latest.get(moment.instrument.symbol)
        return [] if told is None else self.said(told)

    def said(self, told):
        return [told.text]
'''
"""An input that shows texts as they come."""


def register(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    names: Mapping[str, str],
    version: str = "1.0",
    *,
    package: str = "own-inputs",
) -> None:
    """Install a package with this source; `names` are its inputs, each with its class."""
    module = f"own_inputs_{folder.name.replace('-', '_')}_{version.replace('.', '_')}"
    info = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (folder / f"{module}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    listed = "".join(f"{name} = {module}:{cls}\n" for name, cls in names.items())
    (info / "entry_points.txt").write_text(f"[{table_inputs.GROUP}]\n{listed}")
    monkeypatch.syspath_prepend(str(folder))
    table_inputs.forget()


def told(text: str, offset: int = 0, *, name: str = "desk_texts", symbol: str = SYMBOL, at_ms: int = START) -> Record:
    """Return a record of the input `name`."""
    return Record(topic_name(name, MODE), 0, offset, at_ms, symbol.encode(), value(text, symbol, at_ms))


def value(text: str, symbol: str = SYMBOL, at_ms: int = START) -> bytes:
    """Return a record's value."""
    return orjson.dumps({"schema_version": 1, "run_mode": MODE, "symbol": symbol, "ts_ms": at_ms, "text": text})
