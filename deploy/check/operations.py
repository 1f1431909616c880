"""The anchors of `docs/operations.md` that runbook links may point to."""

from __future__ import annotations

import re
from typing import Final

from deploy.check.result import REPOSITORY

PAGE: Final = "docs/operations.md"


def anchors() -> frozenset[str]:
    """Return the anchor of each heading as GitHub forms it: lower case, words joined by hyphens."""
    lines = (REPOSITORY / PAGE).read_text(encoding="utf-8").splitlines()
    titles = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    return frozenset(re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles)
