"""Consumer groups of the in-process broker: membership, rebalances and committed offsets.

A rebalance runs in the background: every member's `on_revoked` has returned before any member's `on_assigned` is called. One that
comes while `on_assigned` still runs cancels it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence

from services.core.bus.error_text import closed, not_held
from services.core.bus.memory_log import Cursor, Topics, Waker, poll
from services.core.bus.port import BusError, Committed, RebalanceListener, Record, TopicPartition
from services.core.bus.range_assignor import assign_ranges


class Group:
    """One consumer group."""

    def __init__(self, name: str, topics: Topics) -> None:
        """Start without members and commits."""
        self.name = name
        self.topics = topics
        self.committed: dict[TopicPartition, Committed] = {}
        self._members: dict[str, MemoryConsumer] = {}
        self._numbers = itertools.count()
        self._one_at_a_time = asyncio.Lock()
        self._rebalances: set[asyncio.Task[None]] = set()
        self._changed = False

    def join(self, member: MemoryConsumer, client_id: str, instance_id: str | None) -> str:
        """Take in a member and return its id; an older one of the same `instance_id` is fenced."""
        member_id = instance_id or f"{client_id}-{next(self._numbers):06d}"
        former = self._members.pop(member_id, None)
        if former is not None:
            former.fence(f"another member of group {self.name!r} took over its instance id {instance_id!r}; give each its own")
        self._members[member_id] = member
        self._schedule()
        return member_id

    async def leave(self, member_id: str, member: MemoryConsumer) -> None:
        """Let a member drain and go, then share its partitions out."""
        async with self._one_at_a_time:
            try:
                await member.revoke()
            finally:
                self.drop(member_id, member)

    def drop(self, member_id: str, member: MemoryConsumer) -> None:
        """Take a member out without asking it."""
        if self._members.get(member_id) is member:
            del self._members[member_id]
            self._schedule()

    async def settle(self) -> None:
        """Return once no rebalance and no take-over is under way."""
        while self._rebalances:
            await asyncio.gather(*self._rebalances)
        if taking_over := [member.take_over for member in self._members.values() if member.take_over is not None]:
            await asyncio.wait(taking_over)

    def _schedule(self) -> None:
        self._changed = True
        task = asyncio.get_running_loop().create_task(self._rebalance(), name=f"rebalance {self.name}")
        self._rebalances.add(task)
        task.add_done_callback(self._rebalances.discard)

    async def _rebalance(self) -> None:
        async with self._one_at_a_time:
            if not self._changed:
                return  # a rebalance that waited before this one has seen every change
            await asyncio.gather(*(member.try_revoke() for member in self._members.values()))
            self._changed = False
            members = dict(self._members)
            subscribed = {topic for member in members.values() for topic in member.subscription}
            partitions = {topic: len(self.topics.topic(topic).partitions) for topic in subscribed}
            assigned = assign_ranges({member_id: member.subscription for member_id, member in members.items()}, partitions)
            for member_id, member in members.items():
                member.assign(assigned[member_id])


class MemoryConsumer:
    """A member of an in-process group. See `Consumer` for what each method promises."""

    def __init__(self, group: Group, client_id: str, instance_id: str | None) -> None:
        """Make a member that has not joined yet."""
        self.subscription: frozenset[str] = frozenset()
        self.take_over: asyncio.Task[None] | None = None
        self._group = group
        self._client_id = client_id
        self._instance_id = instance_id
        self._member_id: str | None = None
        self._listener: RebalanceListener | None = None
        self._cursor = Cursor(group.topics)
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._ready = False
        self._failure: Exception | None = None
        self._closed = False
        self._changed = Waker()

    async def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group; `listener` is called in the background."""
        for topic in topics:
            self._group.topics.topic(topic)
        self.subscription = frozenset(topics)
        self._listener = listener
        self._member_id = self._group.join(self, self._client_id, self._instance_id)

    async def poll(self, *, timeout_ms: int, max_records: int = 500) -> list[Record]:
        """Return the next records; raise what the listener raised."""
        return await poll(self._take, self._wakers, timeout_ms=timeout_ms, max_records=max_records)

    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions this member holds."""
        return self._assigned

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from `offset`."""
        self._check_held([partition], "seek in")
        self._cursor.seek(partition, offset)
        self._changed.wake()

    def position(self, partition: TopicPartition) -> int | None:
        """Return the next offset to be read."""
        return self._cursor.position(partition) if partition in self._assigned else None

    async def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        """Return what the group last committed."""
        return {partition: self._group.committed.get(partition) for partition in partitions}

    async def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        """Commit for partitions that this member holds."""
        self._check_held(offsets, "commit")
        self._group.committed.update(offsets)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop returning records of `partitions`."""
        self._check_held(partitions, "pause")
        self._cursor.paused.update(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Undo `pause`."""
        self._check_held(partitions, "resume")
        self._cursor.paused.difference_update(partitions)
        self._changed.wake()

    async def close(self) -> None:
        """Drain and leave the group."""
        if self._closed:
            return
        self._closed = True
        self._changed.wake()
        if self._member_id is not None:
            await self._group.leave(self._member_id, self)

    def crash(self) -> None:
        """Go as a killed process goes: the listener is not told, nothing is committed, the group goes on without it."""
        self.fence("it crashed")
        self._closed = True
        if self._member_id is not None:
            self._group.drop(self._member_id, self)

    def fence(self, why: str) -> None:
        """Take everything from this member; its next poll or commit raises BusError."""
        self._ready = False
        if self.take_over is not None:
            self.take_over.cancel()
        self._assigned = frozenset()
        self._cursor.assign({})
        self._failure = BusError(f"member {self._client_id!r} is no longer in group {self._group.name!r}: {why}")
        self._changed.wake()

    async def revoke(self) -> None:
        """End a take-over that still runs, let the listener drain, then hold nothing."""
        self._ready = False
        if self.take_over is not None:
            self.take_over.cancel()
            await asyncio.wait([self.take_over])
            self.take_over = None
        try:
            if self._assigned and self._listener is not None:
                await self._listener.on_revoked(self._assigned)
        finally:
            self._assigned = frozenset()
            self._cursor.assign({})

    async def try_revoke(self) -> None:
        """Revoke; what the listener raises is kept for `poll`, since the group must go on."""
        try:
            await self.revoke()
        except Exception as error:  # noqa: BLE001 - raised again by poll
            self._fail(error)

    def assign(self, partitions: frozenset[TopicPartition]) -> None:
        """Hold `partitions` from their committed offsets on, and let the listener take them over in the background."""
        if self._closed or self._listener is None:
            return
        committed = self._group.committed
        self._assigned = partitions
        self._cursor.assign({partition: committed[partition].offset if partition in committed else None for partition in partitions})
        self.take_over = asyncio.get_running_loop().create_task(
            self._take_over(self._listener, partitions), name=f"take over {self._client_id}"
        )

    async def _take_over(self, listener: RebalanceListener, partitions: frozenset[TopicPartition]) -> None:
        try:
            await listener.on_assigned(partitions)
        except Exception as error:  # noqa: BLE001 - raised again by poll
            self._fail(error)
        else:
            self._ready = True
            self._changed.wake()

    def _take(self, max_records: int) -> list[Record]:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise BusError(closed("consumer", self._client_id))
        return self._cursor.take(max_records) if self._ready else []

    def _wakers(self) -> tuple[Waker, ...]:
        return (self._changed, *self._cursor.grown)

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._changed.wake()

    def _check_held(self, partitions: Sequence[TopicPartition] | Mapping[TopicPartition, Committed], verb: str) -> None:
        if foreign := sorted(set(partitions) - self._assigned):
            raise BusError(not_held(self._client_id, self._group.name, verb, foreign))
