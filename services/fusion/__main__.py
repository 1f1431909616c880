"""Runs a fusion worker: `python -m services.fusion --config FILE`."""

from __future__ import annotations

import gc
import sys

# Nothing that is imported is garbage: passes over it took 0.1 of 1.0 s. `memory_tuning.freeze` switches the collector on again.
gc.disable()

from services.core.lifecycle import run_service  # noqa: E402
from services.fusion.service import build  # noqa: E402

sys.exit(run_service("fusion", build))
