"""Logs: structlog for our own lines, and one way for libraries' lines to look and end up the same.

One line a happening on standard error, JSON unless on a terminal. No value can break a line or steer a terminal.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import orjson
import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from services.core.settings import LogSettings

# What ends a line for some reader of lines (str.splitlines, a pager, a terminal) or starts a terminal's control sequence.
_UNSAFE: Final = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
_ASCII_END: Final = 0x7F
_CONSOLE_ESCAPES: Final = {code: f"\\u{code:04x}" for code in _UNSAFE} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}
# JSON escapes what lies below; these it may leave as they are. They stand inside strings only, where this escape is legal.
_JSON_ESCAPES: Final = {code: f"\\u{code:04x}" for code in _UNSAFE if code >= _ASCII_END}
_MAX_FRAMES: Final = 20


def configure(settings: LogSettings, *, service: str, stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (standard error when None), each line naming `service`.

    Our own lines follow `settings.level`. Libraries' lines are kept from `warning` on, and all of them at `debug`: Kafka's
    client alone writes several lines a rebalance at `info`.
    """
    out = sys.stderr if stream is None else stream
    console = settings.format == "console" or (settings.format == "auto" and out.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]

    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        add_service,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
    ]
    final: list[Processor] = (
        [
            _escape,
            structlog.dev.ConsoleRenderer(
                colors=out.isatty() and "NO_COLOR" not in os.environ, timestamp_key="ts", exception_formatter=_write_exception
            ),
        ]
        if console
        else [structlog.processors.ExceptionRenderer(_exception_as_data()), _to_json]
    )
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        # Loggers at module level would otherwise keep the first configuration of the process, against a later one's wish.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
            use_get_message=True,
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level if level == logging.DEBUG else max(level, logging.WARNING))
    logging.captureWarnings(capture=True)


def _exception_as_data() -> ExceptionDictTransformer:
    # Without locals: they hold passwords, and whole messages.
    return ExceptionDictTransformer(show_locals=False, max_frames=_MAX_FRAMES)


def _to_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        line = orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        line = b"{" + b",".join(_to_json_member(str(key), value) for key, value in event.items()) + b"}"
    return line.decode().translate(_JSON_ESCAPES)


def _to_json_member(key: str, value: object) -> bytes:
    name = orjson.dumps(ascii(key)[1:-1] if not key.isascii() else key)
    try:
        return name + b":" + orjson.dumps(value, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # lone surrogates, integers past 64 bits, keys that are no scalars
        return name + b":" + orjson.dumps(ascii(value))


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    safe: MutableMapping[str, Any] = {}
    for key, value in event.items():
        name = str(key).translate(_CONSOLE_ESCAPES)
        safe[name] = value if key == "exc_info" else _printable(value if isinstance(value, str) else repr(value))
    return safe


def _printable(text: str) -> str:
    # Lone surrogates cannot be written to a UTF-8 stream.
    return text.encode("utf-8", "backslashreplace").decode().translate(_CONSOLE_ESCAPES)


def _write_exception(out: TextIO, exc_info: ExcInfo) -> None:
    """Write one line an exception and one a frame: the traceback's own layout would print its message's newlines."""
    _write_stacks(out, _exception_as_data()(exc_info), "\n  ")


def _write_stacks(out: TextIO, stacks: list[dict[str, Any]], start: str) -> None:
    for stack in stacks:
        out.write(f"{start}{stack['exc_type']}: {_printable(stack['exc_value'])}")
        out.writelines(f"{start}  {frame['filename']}:{frame['lineno']} in {frame['name']}" for frame in stack["frames"])
        for inner in stack["exceptions"]:  # of an exception group
            _write_stacks(out, inner, start + "  ")
