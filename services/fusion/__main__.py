"""Runs a fusion worker: `python -m services.fusion --config FILE`."""

from __future__ import annotations

import sys

from services.core.lifecycle import run_service
from services.fusion.service import build

sys.exit(run_service("fusion", build))
