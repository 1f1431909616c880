"""Whatever docs/guarantees.md points at exists: a promise whose test was renamed away would be a claim."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = sorted(set(re.findall(r"`((?:tests|services|docs)/[\w./-]+(?:::\w+)?)`", (ROOT / "docs/guarantees.md").read_text())))


def test_the_page_points_at_tests() -> None:
    assert len(NAMED) > 40


@pytest.mark.parametrize("named", NAMED)
def test_what_the_page_points_at_exists(named: str) -> None:
    path, _, name = named.partition("::")
    assert (ROOT / path).exists()
    if name:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)
