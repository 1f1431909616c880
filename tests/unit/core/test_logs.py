"""Log lines: whole, one a happening, the same for libraries, and safe against what a value holds."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any, Literal

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from services.core import logs
from services.core.settings import LogSettings

HOSTILE = "first\nsecond\r\x1b[31m\u2028\u2029\x85\x0bthird\ud800"


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def _configured(form: Literal["auto", "json", "console"], level: Literal["debug", "info"] = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(LogSettings(format=form, level=level), service="fusion", stream=stream)
    return stream


def _only(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    found: dict[str, Any] = orjson.loads(line)
    return found


def test_a_line_is_json_where_no_terminal_reads_it() -> None:
    stream = _configured("auto")
    structlog.get_logger().info("trigger_done", outcome="published", latency_ms=12.5)
    line = _only(stream)
    assert line.pop("ts").endswith("Z")
    assert line == {"event": "trigger_done", "level": "info", "service": "fusion", "outcome": "published", "latency_ms": 12.5}


def test_a_line_carries_what_is_bound_to_its_context() -> None:
    stream = _configured("json")
    with structlog.contextvars.bound_contextvars(trace_id="abc"):
        structlog.get_logger().info("folded")
    assert _only(stream)["trace_id"] == "abc"


def test_lines_below_the_level_are_not_written() -> None:
    stream = _configured("json")
    structlog.get_logger().debug("detail")
    assert stream.getvalue() == ""


def test_a_library_speaks_through_the_same_lines() -> None:
    stream = _configured("json")
    logging.getLogger("aiokafka.consumer").warning("lost %s", "broker")
    line = _only(stream)
    assert (line["event"], line["logger"], line["level"], line["service"]) == (
        "lost broker",
        "aiokafka.consumer",
        "warning",
        "fusion",
    )


def test_a_library_is_kept_quiet_below_warning_unless_all_is_to_be_seen() -> None:
    stream = _configured("json")
    logging.getLogger("aiokafka").info("joined group")
    assert stream.getvalue() == ""
    stream = _configured("json", level="debug")
    logging.getLogger("aiokafka").info("joined group")
    assert _only(stream)["event"] == "joined group"


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_value_breaks_a_line_or_steers_a_terminal(form: Literal["json", "console"]) -> None:
    stream = _configured(form)
    structlog.get_logger().info("bad_record", detail=HOSTILE, nested={"x": [HOSTILE]}, **{"odd\nkey": 1})
    logging.getLogger("aiokafka").warning("odd %s", HOSTILE)
    text = stream.getvalue()
    assert len(text.splitlines()) == 2
    assert "\x1b" not in text


@given(st.text())
def test_any_text_comes_back_from_a_json_line_as_it_was(value: str) -> None:
    stream = _configured("json")
    structlog.get_logger().info("x", value=value)
    assert _only(stream)["value"] == value


def test_one_value_that_json_cannot_hold_leaves_the_others_as_they_are() -> None:
    stream = _configured("json")
    structlog.get_logger().info("x", big=2**70, small=3, broken="\ud800")
    line = _only(stream)
    assert (line["big"], line["small"], line["broken"]) == (str(2**70), 3, r"'\ud800'")


def test_an_exception_is_data_without_the_values_of_local_variables() -> None:
    stream = _configured("json")
    password = "hunter2"
    try:
        try:
            int("no number")
        except ValueError as cause:
            raise ValueError("first\nsecond") from cause
    except ValueError:
        structlog.get_logger().exception("failed")
    line = _only(stream)
    assert [(item["exc_type"], item["exc_value"]) for item in line["exception"]] == [
        ("ValueError", "first\nsecond"),
        ("ValueError", "invalid literal for int() with base 10: 'no number'"),
    ]
    assert password not in stream.getvalue()


def _fail() -> None:
    raise ValueError("a\nb")


def _raised() -> Exception:
    try:
        _fail()
    except ValueError as raised:
        return raised
    raise AssertionError


def test_on_a_console_each_exception_of_a_group_and_each_frame_has_its_own_line() -> None:
    stream = _configured("console")
    structlog.get_logger().error("failed", exc_info=ExceptionGroup("two", [_raised(), TypeError("c")]))
    lines = [line.strip() for line in stream.getvalue().splitlines()]
    assert r"ValueError: a\nb" in lines
    assert "TypeError: c" in lines
    assert any(line.startswith(__file__) for line in lines)


def test_a_later_configuration_holds_for_loggers_that_were_made_before() -> None:
    logger = structlog.get_logger()
    _configured("json")
    logger.info("to the first")
    stream = _configured("json")
    logger.info("to the second")
    assert _only(stream)["event"] == "to the second"
