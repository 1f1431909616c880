"""The answers that an evaluation has had so far, in a file beside its results: an interrupted one asks the other prompts alone."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import orjson

from services.inference.engine import Usage
from services.training.examples import Example


class Reply(NamedTuple):
    """What an engine said to a test prompt, and of the call."""

    text: str
    usage: Usage | None

    @property
    def finish_reason(self) -> str | None:
        """Return why the engine ended."""
        return None if self.usage is None else self.usage.finish_reason


def part_of(results: Path) -> Path:
    """Return the file that holds the answers until `results` does."""
    return results.with_name(f"{results.name}.part")


class AnswersSoFar:
    """JSON lines: what is asked of whom, then each reply as it comes. Without a file nothing is kept."""

    def __init__(self, results: Path | None, asked: dict[str, Any]) -> None:
        """Read what an interrupted evaluation into `results` has left; raise ValueError when it did not ask `asked`, OSError."""
        self._replies: dict[tuple[str, str], Reply] = {}
        self._file = None if results is None else part_of(results)
        self._open = None
        if self._file is None:
            return
        kept = self._file.read_bytes().splitlines(keepends=True) if self._file.is_file() else []
        # The last line of a process that was killed may be half of one.
        lines = [line for line in kept if line.endswith(b"\n")] or [orjson.dumps(asked, option=orjson.OPT_APPEND_NEWLINE)]
        try:
            asked_before, *replies = (orjson.loads(line) for line in lines)
            other = ", ".join(
                f"{name} {asked_before[name]!r}, not {value!r}" for name, value in asked.items() if asked_before[name] != value
            )
            for reply in replies:
                self._replies[reply["id"], reply["shape"]] = Reply(reply["text"], reply["usage"] and Usage(**reply["usage"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._file} holds no answers of an evaluation ({error}): remove it") from None
        if other:
            raise ValueError(f"{self._file} holds the answers of another evaluation ({other}): remove it, or name another --out")
        self._open = self._file.open("wb")
        self._open.writelines(lines)
        self._open.flush()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._replies)

    def __enter__(self) -> Self:
        """Keep replies until the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file, which stays."""
        if self._open is not None:
            self._open.close()

    def get(self, example: Example) -> Reply | None:
        """Return the reply to this prompt, None where it was not asked yet."""
        return self._replies.get((example.about.id, example.about.shape))

    def add(self, example: Example, reply: Reply) -> None:
        """Keep a reply; raise OSError."""
        if self._open is None:
            return
        row = {"id": example.about.id, "shape": example.about.shape, "text": reply.text, "usage": reply.usage}
        self._open.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        self._open.flush()
