"""The checks of Dockerfiles find what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.check import docker


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("RUN pip install --no-cache-dir numpy==2.4.6", "resolves packages itself"),
        ("COPY services schemas ./", "schemas does not exist"),
        ("COPY tests tests", "excludes tests from the build"),
    ],
)
def test_what_would_break_a_build_or_its_hashes_is_named(line: str, named: str, tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("*\n!services\n!schemas\n")
    (tmp_path / "services").mkdir()
    (tmp_path / "tests").mkdir()
    found = [*docker._resolved(line), *docker._copied(line, tmp_path)]
    assert [named in sentence for sentence in found] == [True]
