"""Where the demo's log lines go: above the panel when both share a terminal, and nowhere when an outage explains them."""

from __future__ import annotations

import io
import sys

from rich.console import Console
from rich.text import Text


class LogOutput(io.StringIO):
    """Standard error, shared with a panel on the same terminal."""

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        """Write above the panel of `console`; `verbose` writes held-back lines too."""
        super().__init__()
        self._console = console
        self._shared = console.is_terminal and sys.stderr.isatty()
        self._verbose = verbose
        self._held_text: str | None = None
        self.held = 0

    def hold(self, text: str) -> None:
        """From now on, count lines that contain `text` instead of writing them."""
        self._held_text = None if self._verbose else text

    def isatty(self) -> bool:
        """Return whether standard error is a terminal."""
        return sys.stderr.isatty()

    def write(self, text: str) -> int:
        """Write whole lines."""
        if self._held_text is not None and self._held_text in text:
            self.held += 1
        elif not self._shared:
            sys.stderr.write(text)
        elif text.strip():
            self._console.print(Text.from_ansi(text.rstrip("\n")), highlight=False, soft_wrap=True)
        return len(text)
