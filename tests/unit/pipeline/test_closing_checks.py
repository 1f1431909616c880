"""What must hold of every run, and what names each check that does not."""

from __future__ import annotations

from uuid import uuid4

import pytest

from schemas import DeadLetterReason, Outcome
from services.fusion.deliver.accounts import Accounts
from services.pipeline.closing_checks import closing_checks
from services.pipeline.outputs import Outputs, outcomes
from tests.unit.pipeline.build import audit, signal


@pytest.fixture
def outputs() -> Outputs:
    return Outputs()


def _counted(outputs: Outputs, records: int) -> Accounts:
    accounts = Accounts(triggers=len(outputs.audits))
    accounts.records["folded"] = records
    accounts.outcomes.update({outcome.value: count for outcome, count in outcomes(outputs.audits.values()).items()})
    return accounts


def _publish(outputs: Outputs) -> None:
    record = audit()
    outputs.add(signal(record.signal_id))
    outputs.add(record)


def test_checks_that_hold_are_ok(outputs: Outputs) -> None:
    _publish(outputs)
    outputs.add(audit(Outcome.FAILED, reason="engine_open"))
    assert all(one.ok for one in closing_checks(_counted(outputs, 5), outputs, inputs=5))


def test_each_failing_check_is_named(outputs: Outputs) -> None:
    _publish(outputs)

    def wrong(accounts: Accounts, inputs: int = 5) -> list[str]:
        return [one.what for one in closing_checks(accounts, outputs, inputs) if not one.ok]

    assert wrong(_counted(outputs, 4)) == ["every record was folded, ignored or dead-lettered"]
    lost = _counted(outputs, 5)
    lost.triggers += 1
    assert wrong(lost) == ["every trigger has one outcome in the audit"]
    outputs.add(audit())
    assert wrong(_counted(outputs, 5)) == ["every published outcome has its signal"]
    outputs.add(audit(Outcome.FAILED, signal_id=uuid4()))
    assert "no failure became a signal" in wrong(_counted(outputs, 5))
    outputs.add(signal(uuid4(), valid_until_ms=1))
    assert "no signal left past its validity" in wrong(_counted(outputs, 5))


def test_a_lane_that_goes_back_in_time_is_found(outputs: Outputs) -> None:
    _publish(outputs)
    earlier = signal(uuid4())
    back = earlier.as_of.model_copy(update={"market": earlier.as_of.market.model_copy(update={"offset": 1})})
    outputs.add(earlier.model_copy(update={"as_of": back}))
    assert [one.what for one in closing_checks(_counted(outputs, 0), outputs, 0) if not one.ok] == ["no lane went back in time"]


def test_dead_letters_count_as_records(outputs: Outputs) -> None:
    accounts = _counted(outputs, 3)
    accounts.records["dead_lettered"] = 1
    accounts.dead_letters[DeadLetterReason.LATE.value] = 1
    assert closing_checks(accounts, outputs, 4)[0].ok
