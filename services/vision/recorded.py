"""The recorded vision features that the demo plays by default; `aquiline vision record` writes them."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from schemas import VisionFeatures

RECORDED_FILE: Final = Path(__file__).parent / "data" / "demo-vision.jsonl.gz"


def load_recorded(file: Path = RECORDED_FILE) -> dict[tuple[str, int], VisionFeatures]:
    """Return the recorded features by symbol and `window_end_ms`; raise FileNotFoundError when there is no recording."""
    with gzip.open(file, "rb") as lines:
        recorded = [VisionFeatures.decode(line) for line in lines]
    return {(features.symbol, features.window_end_ms): features for features in recorded}


def save_recorded(recorded: Iterable[VisionFeatures], file: Path = RECORDED_FILE) -> None:
    """Write the features, one JSON line each, ordered by time, then by symbol; the same features give the same bytes."""
    ordered = sorted(recorded, key=lambda features: (features.window_end_ms, features.symbol))
    lines = b"".join(features.encode() + b"\n" for features in ordered)
    file.write_bytes(gzip.compress(lines, compresslevel=9, mtime=0))
