"""The event log: every client at its own pace, none of them at another's cost."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from services.console.events import Event, EventLog


def _log(count: int, max_events: int = 100, max_bytes: int = 1_000_000) -> EventLog:
    log = EventLog(max_events, max_bytes)
    for number in range(1, count + 1):
        log.append(Event("decision", str(number).encode()))
    return log


@given(st.integers(0, 60), st.integers(1, 30), st.integers(0, 60))
def test_a_client_gets_every_event_after_its_position_or_is_told_that_some_are_gone(count: int, held: int, position: int) -> None:
    log = _log(count, max_events=held)
    position = min(position, count)
    got, at = [], position
    frame = log.after(at, "")
    if position < count - held:
        assert frame.resync
        assert frame.position == count
        return
    while frame.events:
        got += [int(one.data) for one in frame.events]
        at = frame.position
        frame = log.after(at, "")
    assert got == list(range(position + 1, count + 1))


def test_the_bytes_held_are_bounded() -> None:
    log = _log(0, max_bytes=1_000)
    for _ in range(50):
        log.append(Event("decision", b"x" * 100))
    assert len(log.after(40, "").events) == 10
    assert log.after(39, "").resync


def test_bars_reach_those_who_look_at_their_symbol_and_decisions_reach_everybody() -> None:
    log = EventLog()
    log.append(Event("bar", b"1", "AAPL.XNAS"))
    log.append(Event("bar", b"2", "MSFT.XNAS"))
    log.append(Event("decision", b"3"))
    assert [one.data for one in log.after(0, "AAPL.XNAS").events] == [b"1", b"3"]
    assert [one.data for one in log.after(0, "").events] == [b"3"]
    assert log.after(0, "").position == 3


def test_an_id_of_another_process_or_of_no_process_names_no_position() -> None:
    log, other = _log(5), _log(5)
    assert log.position_of(log.id_of(3)) == 3
    for given_id in (other.id_of(3), "", None, "nonsense", log.id_of(3) + "x", log.id_of(3).replace("-", "-9" * 40)):
        assert log.position_of(given_id) is None


async def test_a_waiting_client_wakes_with_the_next_event_and_at_the_end() -> None:
    log = _log(1)
    waiting = [asyncio.create_task(log.wait(1, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    log.append(Event("decision", b"2"))
    log.wake()
    await asyncio.gather(*waiting)
    again = asyncio.create_task(log.wait(2, 60))
    await asyncio.sleep(0)
    log.close()
    await again
