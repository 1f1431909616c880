"""Writes `docs/metrics.md` from `services/core/metrics.py`: each metric with its type, its labels and the comment above it.

`python -m services.core.metrics_reference` writes; `--check` compares and fails with a diff.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Final

from services.core.generated_files import write_or_check

PAGE: Final = Path("docs/metrics.md")
SOURCE: Final = Path(__file__).with_name("metrics.py")

_TYPES: Final = {"Counter": "counter", "Gauge": "gauge", "Histogram": "histogram", "Info": "info", "Summary": "summary"}
_SECTION: Final = "# --- "
_HEAD: Final = """# Metrics

<!-- Written by `python -m services.core.metrics_reference` from `services/core/metrics.py`; change that. -->

Every service exports these on `/metrics` of its `http.port`, in Prometheus' text format, beside its process' own (`process_*`).
Units stand in the names. Those that a service has no use for stay at 0. A label's values come from an enumeration, the settings or
at most `fusion.max_symbols` symbols, never from a message as it came. What alerts are made of them, and what to do about those, is
in [operations.md](operations.md#alerts).
"""


def page(source: str | None = None) -> str:
    """Return `docs/metrics.md`; raise ValueError for a metric without a comment."""
    text = SOURCE.read_text(encoding="utf-8") if source is None else source
    lines = text.splitlines()
    parts = [_HEAD]
    told = end = 0
    for node in ast.parse(text).body:
        described = _described(node)
        if described is None:
            continue
        parts += [f"## {line.strip('#- ')}\n" for line in lines[told : node.lineno] if line.startswith(_SECTION)]
        told = node.lineno
        comment = _comment_above(lines, node.lineno)
        # Metrics that share a comment stand one right under the other.
        if comment:
            parts.append(f"{described}. {comment}\n")
        elif node.lineno == end + 1:
            parts[-1] = parts[-1].replace(". ", f", {described}. ", 1)
        else:
            raise ValueError(f"{SOURCE.name}:{node.lineno}: {described} has no comment; say what it means and when to look at it")
        end = node.end_lineno or node.lineno
    return "\n".join(parts).rstrip() + "\n"


def _described(node: ast.stmt) -> str | None:
    """Return a metric's name with its type and labels, None for what makes no metric."""
    call = node.value if isinstance(node, ast.AnnAssign) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in _TYPES:
        return None
    name = ast.literal_eval(call.args[0]) + ("_info" if call.func.id == "Info" else "")
    labels = ast.literal_eval(call.args[2]) if len(call.args) > 2 else []  # noqa: PLR2004 - name, help, labels
    by = f" by {', '.join(f'`{label}`' for label in labels)}" if labels else ""
    return f"**`{name}`** ({_TYPES[call.func.id]}{by})"


def _comment_above(lines: list[str], number: int) -> str:
    """Return the comment that ends right above line `number` (from 1), as one line."""
    comment: list[str] = []
    for line in reversed(lines[: number - 1]):
        if not line.startswith("#") or line.startswith(_SECTION):
            break
        comment.insert(0, line.removeprefix("#").strip())
    return " ".join(comment)


def main(argv: list[str] | None = None) -> int:
    """Write or check; return the process' exit code."""
    return write_or_check({PAGE: page()}, argv, module="services.core.metrics_reference", about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
