"""Server-sent events, as far as engines use them: `data:` lines, cut out of a byte stream that breaks anywhere."""

from __future__ import annotations

DONE = b"[DONE]"
_MAX_EVENT_BYTES = 8 * 1024 * 1024


class EventParser:
    """Cuts a byte stream into the payloads of its `data:` lines; both engines' APIs put one whole payload on one line."""

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads that `data` completes, in order; raise ValueError at a line of more than 8 MiB."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _MAX_EVENT_BYTES:
            raise ValueError(f"an event of more than {_MAX_EVENT_BYTES} bytes without an end")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]
