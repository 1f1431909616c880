"""A symbol's partition: where its earliest record is, in whatever order partitions are read."""

from __future__ import annotations

import pytest

from schemas import DeadLetterReason
from services.core.decode import Refused
from services.fusion.state.book import Book
from services.fusion.state.intake import NullSink
from tests.unit.fusion import build
from tests.unit.fusion.build import START, SYMBOL, VISION, bar, record, seen
from tests.unit.fusion.log import Folder


@pytest.mark.parametrize("home_first", [True, False])
def test_a_symbol_belongs_to_the_partition_of_its_earliest_record_in_whatever_order_partitions_are_rebuilt(*, home_first: bool) -> None:
    folder = Folder(build.settings())
    home = [record(number, bar(number))._replace(partition=1) for number in range(5)]
    stray = [record(number, bar(number + 2))._replace(partition=3) for number in range(2)]
    sink = NullSink()
    for one in [*home, *stray] if home_first else [*stray, *home]:
        folder.intake.take(one, sink)
    assert folder.books.symbols(1) == {SYMBOL}
    assert folder.books.symbols(3) == frozenset()
    assert len(folder.book(SYMBOL).bars["1m"]) == 5
    taken = folder.intake.take(record(9, bar(9))._replace(partition=3), sink)
    assert isinstance(taken, Refused)
    assert taken.reason is DeadLetterReason.WRONG_PARTITION
    assert SYMBOL in taken.detail


def test_vision_features_on_another_partition_than_the_bars_are_refused() -> None:
    folder = Folder(build.settings())
    sink = NullSink()
    folder.intake.take(record(0, bar(0))._replace(partition=1), sink)
    taken = folder.intake.take(record(0, seen(START + 60_000), topic=VISION)._replace(partition=2), sink)
    assert isinstance(taken, Refused)
    assert taken.reason is DeadLetterReason.WRONG_PARTITION
    assert isinstance(folder.books.get(SYMBOL), Book)
