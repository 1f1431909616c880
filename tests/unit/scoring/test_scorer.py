"""What becomes of each record: judged, filtered, or put aside with its reason."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from schemas import DeadLetterReason, Instrument, InstrumentEvent, Message, RunMode
from services.core.bus import Record
from services.core.errors import ServiceError
from services.core.folding.candles import CandleRules
from services.core.folding.disposition import Disposition
from services.scoring.judge import KEPT_BARS
from services.scoring.scorer import Scored, Scorer
from tests.unit.scoring.build import FREE, MODE, SYMBOL, bar, cancel, signal, split

FLAT = "100 100.2 99.8 100"


class Known:
    """Instruments and splits as they are told."""

    def __init__(self, adjustment: str = "none", calendar: str = "24x7") -> None:
        values = {"schema_version": 1, "run_mode": MODE, "symbol": SYMBOL, "currency": "USD", "price_increment": "0.01"}
        self.found: Instrument | None = Instrument.model_validate({**values, "calendar": calendar, "price_adjustment": adjustment})
        self.events: list[InstrumentEvent] = []

    def get(self, symbol: str) -> Instrument | None:
        return self.found if symbol == SYMBOL else None

    def restatements(self, symbol: str) -> Sequence[InstrumentEvent]:
        return self.events if symbol == SYMBOL else ()


def scorer(known: Known | None = None, stored: dict[str, bytes] | None = None, partitions: int = 4) -> Scorer:
    return Scorer(known or Known(), lambda _: FREE, CandleRules((MODE,), 100_000, 2_000), partitions, (stored or {}).get)


def record(message: Message | bytes, *, key: str = SYMBOL) -> Record:
    value = message if isinstance(message, bytes) else message.encode()
    return Record("topic", 0, 0, 2_000_000_000_000, key.encode(), value)


def reason(scored: Scored) -> DeadLetterReason | None:
    assert (scored.disposition is Disposition.DEAD_LETTERED) == (scored.refused is not None)
    return scored.refused.reason if scored.refused else None


def test_a_signal_and_its_bars_make_an_outcome() -> None:
    one = scorer()
    assert one.signal(record(signal())).disposition is Disposition.FOLDED
    assert one.open_signals == 1
    scored = one.bar(record(bar(0, "100 102 99.9 101")))
    assert [outcome.exit for outcome in scored.outcomes] == ["102.00"]
    assert one.open_signals == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", DeadLetterReason.EMPTY),
        (b"{", DeadLetterReason.MALFORMED),
        (b"[]", DeadLetterReason.MALFORMED),
        (b'{"kind":"cancel"}', DeadLetterReason.INVALID),
        (b"x" * 100_001, DeadLetterReason.TOO_LARGE),
        (signal(stop=None).encode(), DeadLetterReason.INVALID),
        (signal(run_mode=RunMode.LIVE).encode(), DeadLetterReason.WRONG_RUN_MODE),
        (signal(symbol="AAA.XTST").encode(), DeadLetterReason.KEY_MISMATCH),
    ],
)
def test_a_signal_that_cannot_be_used_is_refused_by_its_reason(value: bytes, expected: DeadLetterReason) -> None:
    assert reason(scorer().signal(record(value))) is expected


def test_what_is_said_of_an_unknown_instrument_is_refused_and_its_bars_are_filtered() -> None:
    one = scorer()
    assert reason(one.signal(record(signal(symbol="AAA.XTST"), key="AAA.XTST"))) is DeadLetterReason.UNKNOWN_INSTRUMENT
    filtered = one.bar(record(bar(0, FLAT, symbol="AAA.XTST"), key="AAA.XTST"))
    assert (filtered.disposition, filtered.may_change_on_refresh) == (Disposition.FILTERED, True)


def test_an_instrument_with_a_calendar_that_nobody_knows_is_an_unknown_one() -> None:
    assert reason(scorer(Known(calendar="XNOWHERE")).signal(record(signal()))) is DeadLetterReason.UNKNOWN_INSTRUMENT


def test_a_signal_whose_bars_are_long_gone_is_late() -> None:
    one = scorer()
    for number in range(KEPT_BARS + 1):
        one.bar(record(bar(number, FLAT)))
    assert reason(one.signal(record(signal()))) is DeadLetterReason.LATE


def test_a_bar_from_the_future_is_refused_before_it_ends_what_is_open() -> None:
    one = scorer()
    one.signal(record(signal()))
    early = record(bar(9, FLAT))._replace(timestamp_ms=bar(0, FLAT).ts_close_ms)
    assert reason(one.bar(early)) is DeadLetterReason.FUTURE
    assert one.open_signals == 1


@pytest.mark.parametrize("said", [signal("hold"), signal("abstain")])
def test_hold_and_abstain_are_filtered(said: Message) -> None:
    assert scorer().signal(record(said)).disposition is Disposition.FILTERED


def test_a_bar_that_forms_is_filtered() -> None:
    assert scorer().bar(record(bar(0, FLAT, closed=False))).disposition is Disposition.FILTERED


@pytest.mark.parametrize(("adjustment", "reason"), [("none", "horizon"), ("split", "stop")])
def test_splits_count_where_prices_are_not_adjusted_already(adjustment: str, reason: str) -> None:
    known = Known(adjustment)
    one = scorer(known)
    one.signal(record(signal(horizon_bars=2)))
    one.bar(record(bar(0, FLAT)))
    known.events.append(split(bar(1, FLAT).ts_open_ms, 2.0))
    scored = one.bar(record(bar(1, "50 50.2 49.9 50")))
    assert [outcome.exit_reason for outcome in scored.outcomes] == [reason]


def test_a_later_life_goes_on_with_what_was_stored() -> None:
    first = scorer()
    first.signal(record(signal()))
    later = scorer(stored={SYMBOL: first.dump(SYMBOL)})
    later.begin([SYMBOL])
    assert later.open_signals == 1
    assert later.signal(record(cancel(signal(), 0.5))).outcomes == []
    assert [outcome.exit_reason for outcome in later.bar(record(bar(0, "100 102 99.9 101"))).outcomes] == ["target"]


def test_a_judge_is_stored_as_the_same_bytes_after_a_later_life_took_it_up() -> None:
    first = scorer()
    first.signal(record(signal()))
    first.bar(record(bar(0, FLAT)))
    later = scorer(stored={SYMBOL: first.dump(SYMBOL)})
    later.begin([SYMBOL])
    assert later.dump(SYMBOL) == first.dump(SYMBOL)


def test_what_was_stored_under_another_partition_count_is_refused() -> None:
    first = scorer()
    first.signal(record(signal()))
    with pytest.raises(ServiceError, match="had 4 partitions when its changelog was written and have 6 now"):
        scorer(stored={SYMBOL: first.dump(SYMBOL)}, partitions=6).begin([SYMBOL])
