"""Topics that a worker refuses to start on."""

from __future__ import annotations

import pytest

from schemas import RunMode, Topic, topic_name
from services.core.bus import BusError
from services.core.bus.memory import MemoryBus
from services.core.clock import SystemClock
from services.core.topic_admin import INPUTS, check_topics, ensure_topics


@pytest.mark.parametrize("topic", INPUTS)
async def test_inputs_that_carry_their_producers_time_are_refused_at_boot(topic: Topic) -> None:
    admin = await MemoryBus(SystemClock()).admin()
    await ensure_topics(admin, RunMode.LIVE, 2, overrides={topic: {"message.timestamp.type": "CreateTime"}})
    name = topic_name(topic, RunMode.LIVE)
    with pytest.raises(BusError, match=rf"topic '{name}' has message.timestamp.type=CreateTime.*LogAppendTime"):
        await check_topics(admin, RunMode.LIVE)
