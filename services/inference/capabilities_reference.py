"""Writes the table of what each engine can do into docs/engine.md, from what the engines declare.

`python -m services.inference.capabilities_reference` writes; `--check` compares and fails.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Final

from services.inference import llamacpp_client, openai_client, rules, sglang_client, vllm_client
from services.inference.engine import Capabilities

PAGE: Final = Path(__file__).parents[2] / "docs" / "engine.md"
_BEGIN: Final = "<!-- Written by `python -m services.inference.capabilities_reference`. -->\n"
_END: Final = "<!-- End. -->\n"

ENGINES: Final[dict[str, Capabilities]] = {
    "`sglang`, and the simulator": sglang_client.CAPABILITIES,
    "`vllm`": vllm_client.CAPABILITIES,
    "`llamacpp`": llamacpp_client.CAPABILITIES,
    "`openai`": openai_client.CAPABILITIES,
    "`rules`": rules.CAPABILITIES,
}
_COLUMNS: Final = {
    "token_ids": "token ids",
    "prewarm": "pre-warming",
    "abort": "how a cancelled call ends",
    "grammar": "JSON schema",
    "regex": "regular expression",
    "logprobs": "log-probabilities of labels",
    "cached_tokens": "counts cached tokens",
    "prewarm_yields": "pre-warming yields at once",
}


def table() -> str:
    """Return the table as Markdown."""
    names = [field.name for field in fields(Capabilities)]
    lines = [f"| `engine.kind` | {' | '.join(_COLUMNS[name] for name in names)} |", f"|---|{'---|' * len(names)}"]
    for engine, can in ENGINES.items():
        values = (getattr(can, name) for name in names)
        lines.append(f"| {engine} | {' | '.join({True: 'yes', False: 'no'}.get(value, str(value)) for value in values)} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> int:
    """Write or check the page; return the exit status."""
    page = PAGE.read_text(encoding="utf-8")
    before, begun, rest = page.partition(_BEGIN)
    _, ended, after = rest.partition(_END)
    if not begun or not ended:
        print(f"{PAGE} lacks the lines between which the table stands: {_BEGIN.strip()} and {_END.strip()}", file=sys.stderr)  # noqa: T201
        return 1
    made = before + begun + table() + ended + after
    if argv == ["--check"]:
        if made != page:
            print(f"{PAGE} is not as the engines declare; run: make generate", file=sys.stderr)  # noqa: T201 - a command's own words
        return int(made != page)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
