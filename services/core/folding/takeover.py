"""Takes partitions over: rebuilds books from the log from the offset that the last commit names, and commits what is finished.

Unlike fusion's recovery (`services/fusion/deliver/recovery.py`) there are no outputs to read back: the commit alone says where to read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

import structlog

from services.core.bus import BusError, Consumer, Reader, TopicPartition
from services.core.bus.topic_reader import read_offsets
from services.core.folding.disposition import Books, D
from services.core.folding.partition import Partition, rebuild_from

_log = structlog.get_logger()


async def take_over(
    new: AbstractSet[TopicPartition], consumer: Consumer, reader: Reader, begin_books: Callable[[], Books[D]]
) -> dict[TopicPartition, Partition[D]]:
    """Fold the log again up to each partition's commit, publishing nothing, and have `consumer` go on reading there."""
    committed = await consumer.committed(sorted(new))
    begins = await reader.beginning_offsets(sorted(new))
    ends = await reader.end_offsets(sorted(new))
    partitions: dict[TopicPartition, Partition[D]] = {}
    starts: dict[TopicPartition, int] = {}
    for tp in new:
        commit = committed[tp]
        next_offset = begins[tp] if commit is None else commit.offset
        partitions[tp] = Partition(begin_books(), next_offset)
        consumer.seek(tp, next_offset)
        start = next_offset if commit is None else max(begins[tp], rebuild_from(commit))
        # A commit past the log's end is of a topic made anew; the consumer's next poll refuses it with what is missing.
        if start < next_offset <= ends[tp]:
            starts[tp] = start
    read = 0
    async for record in read_offsets(reader, {tp: range(start, partitions[tp].next_offset) for tp, start in starts.items()}):
        partitions[TopicPartition(record.topic, record.partition)].books.take(record)
        read += 1
    _log.info("partitions_taken_over", new=len(new), records_read_back=read)
    return partitions


async def commit_finished(consumer: Consumer, partitions: Mapping[TopicPartition, Partition[D]]) -> None:
    """Commit what is finished of `partitions`."""
    offsets = {tp: partition.to_commit for tp, partition in partitions.items() if partition.to_commit is not None}
    if not offsets:
        return
    try:
        await consumer.commit(offsets)
    except BusError as error:
        # The next commit covers this one; and when the partitions have moved, their new holder starts from the last.
        _log.warning("commit_failed", reason=str(error))
        return
    for tp, commit in offsets.items():
        partitions[tp].committed(commit)
