"""The bus: one small port (`port`), over Kafka (`kafka`) or in process (`memory`)."""

from services.core.bus.port import (
    Admin,
    Bus,
    BusError,
    Committed,
    Consumer,
    DecodedRecord,
    Headers,
    NewTopic,
    OffsetOutOfRangeError,
    Position,
    Producer,
    Reader,
    RebalanceListener,
    Record,
    TopicInfo,
    TopicPartition,
)

__all__ = [
    "Admin",
    "Bus",
    "BusError",
    "Committed",
    "Consumer",
    "DecodedRecord",
    "Headers",
    "NewTopic",
    "OffsetOutOfRangeError",
    "Position",
    "Producer",
    "Reader",
    "RebalanceListener",
    "Record",
    "TopicInfo",
    "TopicPartition",
]
