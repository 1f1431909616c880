"""Where the demo's log lines go: above the panel instead of across it; those that an outage is expected to make are only counted."""

from __future__ import annotations

import io
import sys

from rich.console import Console
from rich.text import Text


class LogLines(io.StringIO):
    """Standard error, but for what a panel on the same terminal needs."""

    def __init__(self, console: Console, *, hold: bool = True) -> None:
        """Share the terminal with `console`, when standard error is one too; hold expected lines back unless told not to."""
        super().__init__()
        self._hold = hold
        self._console = console
        self._through_console = console.is_terminal and sys.stderr.isatty()
        self.expected: str | None = None
        """Lines that hold this text are counted and not written."""
        self.held = 0

    def isatty(self) -> bool:
        """Return whether a person reads along."""
        return sys.stderr.isatty()

    def write(self, text: str) -> int:
        """Write whole lines."""
        if self._hold and self.expected is not None and self.expected in text:
            self.held += 1
        elif self._through_console and text.strip():
            self._console.print(Text.from_ansi(text.rstrip("\n")), highlight=False, soft_wrap=True)
        elif not self._through_console:
            sys.stderr.write(text)
        return len(text)
