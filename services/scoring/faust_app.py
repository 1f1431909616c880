"""The Faust application: which topics it reads, its tables, and how both are set up against Faust's traps.

Faust 0.15.3 was read for each of these; `docs/decisions/0006-how-the-scorer-uses-faust.md` tells them one by one.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import faust
from faust.types import TopicT

from schemas import Topic, topic_name
from services.core.bus.kafka_client import Connection
from services.core.settings import BusSettings, Settings
from services.core.zombie_fence import ZombieFence
from services.scoring.faust_consumer import Transport

_DELIVERY_S: Final = 30.0
_MAX_REQUEST_BYTES: Final = 16_777_216
"""Before compression: a symbol with a thousand open signals takes half a megabyte, and a tenth of it compressed."""
# A type alone does not keep Faust from taking bytes for JSON, and without `allow_empty` a deletion is left out.
_BYTES: Final[dict[str, Any]] = {
    "key_type": bytes,
    "value_type": bytes,
    "key_serializer": "raw",
    "value_serializer": "raw",
    "allow_empty": True,
}


class App(faust.App):
    """Faust's, that loses no record it fetched, and keeps its hands off the disk: tables live in memory and on changelog topics."""

    def _create_directories(self) -> None:
        pass

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)


class ChangelogTable:
    """A table of bytes, kept in memory and on a compacted topic, written to a named partition.

    Faust's own `table[key] = value` writes to the partition of the event that its stream is at, which is another one than that of
    the record in hand when records wait for their turn.
    """

    def __init__(self, app: App, name: str, topic: str, fence: ZombieFence) -> None:
        """Keep the table `name` on `topic`; write no more once `fence` has fallen."""
        changelog = app.topic(topic, **_BYTES, acks=False, internal=True, compacting=True)
        self._table = app.Table(name, key_type=bytes, value_type=bytes, changelog_topic=changelog)
        self._fence = fence
        self._written: set[bytes] = set()

    def get(self, key: bytes) -> bytes | None:
        """Return the value, None when there is none."""
        value: bytes | None = self._table.data.get(key)
        return value

    def held(self) -> list[bytes]:
        """Return all keys of the partitions held."""
        return sorted(self._table.data)

    def put(self, partition: int, key: bytes, value: bytes | None) -> asyncio.Future[Any]:
        """Set a value, or delete it with None; return what is done once the broker has it. Raises FencedError."""
        self._fence.check()
        self._written.add(key)
        sent: asyncio.Future[Any] = self._table.send_changelog(partition, key, value)
        if value is None:
            self._table.data.pop(key, None)
        else:
            self._table.data[key] = value
        return sent

    def forget(self) -> None:
        """Drop what was written here, when partitions move: Faust reads back what is still ours, and would keep what is not."""
        for key in self._written:
            self._table.data.pop(key, None)
        self._written.clear()


def make_app(settings: Settings) -> App:
    """Return the application; raise BusError when certificates or log-in cannot be used. It must be made on the running loop."""
    bus = settings.bus
    session_s = bus.session_timeout_ms / 1000
    return App(
        settings.scoring_group,
        env_prefix="AQUILINE_FAUST_",  # no variable of this name is let through: its settings are the ones below
        broker=[f"kafka://{address}" for address in bus.url.removeprefix("kafka://").split(",")],
        broker_client_id="aquiline-scoring",
        broker_credentials=_credentials(bus),
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / 10,
        broker_rebalance_timeout=bus.rebalance_timeout_ms / 1000,
        # Faust refuses a session that is longer than a request may take.
        broker_request_timeout=max(session_s, bus.request_timeout_ms / 1000),
        broker_commit_interval=settings.scoring.commit_interval_ms / 1000,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=bus.instance_id,
        producer_request_timeout=_DELIVERY_S,
        producer_compression_type="gzip",
        producer_max_request_size=_MAX_REQUEST_BYTES,
        processing_guarantee="at_least_once",
        store="memory://",
        # With no standby Faust keeps its own assignor, which co-partitions, as long as there are tables.
        table_standby_replicas=0,
        # Topics are made by `aquiline topics create`, and refused here when they are not as they must be.
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
        web_enabled=False,
        web_tables_enabled=False,
    )


def subscribe(app: App, settings: Settings) -> TopicT:
    """Return the channel on which both inputs arrive as bytes.

    A Faust stream acknowledges a record unread that was fetched before a rebalance, and a queue of its own is emptied when
    partitions have moved, also of records fetched since. So records are taken from the channel, and from a queue that nobody clears.
    """
    ours = [topic_name(topic, settings.run_mode) for topic in (Topic.STRATEGY_SIGNALS, Topic.MARKET_FEATURES)]
    names = [settings.topics.on_broker(name) for name in ours]
    topic = app.topic(*names, **_BYTES)
    queue = app.FlowControlQueue(maxsize=app.conf.stream_buffer_maxsize, clear_on_resume=False)
    channel = cast("TopicT", topic.clone_using_queue(queue))
    app.topics.add(channel)
    return channel


def _credentials(bus: BusSettings) -> faust.auth.Credentials | None:
    arguments = Connection.from_settings(bus).arguments
    context = arguments.get("ssl_context")
    if bus.security in {"sasl_plaintext", "sasl_ssl"}:
        return faust.SASLCredentials(
            username=arguments["sasl_plain_username"],
            password=arguments["sasl_plain_password"],
            mechanism=arguments["sasl_mechanism"],
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)
