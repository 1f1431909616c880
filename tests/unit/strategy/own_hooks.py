"""Makes hooks that are registered as an installed package's are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from services.strategy import hooks
from services.strategy.hooks import GROUPS


def register(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    names: Mapping[str, str],
    version: str = "1.0",
    *,
    package: str = "own-hooks",
) -> None:
    """Install a package with this source; `names` are its hooks, each with its kind, `facts`, `triggers` or `guards`."""
    info = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (folder / f"own_hooks_{version.replace('.', '_')}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    sections = [f"[{GROUPS[kind]}]\n{name} = own_hooks_{version.replace('.', '_')}:{name}\n" for name, kind in names.items()]
    (info / "entry_points.txt").write_text("\n".join(sections))
    monkeypatch.syspath_prepend(str(folder))
    hooks._entries.cache_clear()
