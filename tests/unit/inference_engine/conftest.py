"""Tests of plug-in and converter need torch, which the base environment does not have; continuous integration has it."""

from __future__ import annotations

import os
from importlib.util import find_spec


def _lacks(*modules: str) -> bool:
    return any(find_spec(module) is None for module in modules)


collect_ignore: list[str] = []
if os.environ.get("CI") != "true" and _lacks("torch", "safetensors"):
    collect_ignore += ["test_sglang_plugin.py", "test_convert.py"]
if _lacks("torch", "safetensors", "transformers"):
    collect_ignore += ["test_convert_transformers.py"]
