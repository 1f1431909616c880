"""Converts aiokafka's exceptions into a BusError that says what failed and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    CorruptRecordException,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from services.core.bus.port import BusError

_HINTS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (
        KafkaConnectionError,
        (
            "the broker cannot be reached, or refuses the log-in; check `bus.url`, `bus.security`, user name, password and certificates, "
            "and that the broker is up (`aquiline doctor` tells which it is)"
        ),
    ),
    (
        (KafkaTimeoutError, RequestTimedOutError, TimeoutError),
        "the broker did not answer in time; check that it is up and that the topic and partition exist",
    ),
    (TopicAuthorizationFailedError, "this user may not use the topic; give it the right on the broker"),
    (UnknownTopicOrPartitionError, "the topic or partition does not exist; create it first (`aquiline topics create`)"),
    (MessageSizeTooLargeError, "the record is too large; make it smaller, or raise the topic's max.message.bytes"),
    (
        CommitFailedError,
        "the group has moved on and another member may hold the partitions, which goes on from the last commit; drop this work",
    ),
    (IllegalStateError, "the partition is not held by this member (any more); drop this work"),
    (ConsumerStoppedError, "it is closed; make another one"),
    (
        CorruptRecordException,
        (
            "nothing from that offset on is read; if a restart names the same offset, the batch is damaged on the broker's disk: let "
            "another replica lead the partition, or delete records up to the batch's end (`kafka-delete-records`) and send them again"
        ),
    ),
)


def bus_error(what: str, error: BaseException) -> BusError:
    """Return a BusError that says `what` failed, why, and what to do."""
    hint = next((text for kinds, text in _HINTS if isinstance(error, kinds)), "see the broker's log")
    return BusError(f"{what} failed ({type(error).__name__}{f': {error}' if str(error) else ''}): {hint}")


@contextmanager
def as_bus_error(what: str) -> Iterator[None]:
    """Convert what aiokafka raises inside the context into a BusError that says what failed."""
    try:
        yield
    except (KafkaError, OSError, TimeoutError) as error:
        raise bus_error(what, error) from error
