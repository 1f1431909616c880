"""An act's audit records by phase."""

from __future__ import annotations

from services.demo.plan import Phase
from tests.unit.demo.build import result
from tests.unit.pipeline.build import audit


def test_triggers_belong_to_the_phase_of_their_bar() -> None:
    found = result()
    burst = next(one for one in found.act.plan.phases if one.phase is Phase.BURST)
    record = audit()
    record = record.model_copy(update={"trigger": record.trigger.model_copy(update={"ts_event_ms": burst.until_ms})})
    found.outputs.add(record)
    assert found.of(Phase.BURST) == [record]
    assert found.of(Phase.PACED) == []
