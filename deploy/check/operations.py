"""The headings of `docs/operations.md`, as links name them."""

from __future__ import annotations

import re
from typing import Final

from deploy.check.found import REPOSITORY

PAGE: Final = "docs/operations.md"


def anchors() -> frozenset[str]:
    """Return the anchor of each heading: small letters, words joined by hyphens, as GitHub makes them."""
    lines = (REPOSITORY / PAGE).read_text(encoding="utf-8").splitlines()
    titles = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    return frozenset(re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles)
