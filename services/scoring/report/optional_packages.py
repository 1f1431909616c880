"""What the page takes beside the terminal's report: the packages of the extra `report`, and the sentence that names it."""

from __future__ import annotations

import importlib
from typing import Any

from services.core.errors import ServiceError


def need(module: str) -> Any:
    """Return the imported module; raise ServiceError, naming the extra, where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ServiceError(
            f"the report's page needs {error.name}, which is not installed; pip install 'aquiline[report]', or leave --out away: "
            "the terminal's report needs neither"
        ) from error
