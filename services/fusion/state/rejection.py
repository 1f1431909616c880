"""Why a decision is stopped: what every rule returns, whichever room it is in."""

from __future__ import annotations

from typing import NamedTuple


class Rejection(NamedTuple):
    """Why a decision is stopped: the rule's name, and what it found."""

    rule: str
    detail: str
