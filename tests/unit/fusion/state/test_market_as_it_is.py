"""Market data as it comes: one ticker on several venues, and bars that form and never close."""

from __future__ import annotations

from services.fusion.state.intake import NullSink
from tests.unit.fusion.build import bar, instrument, record, settings
from tests.unit.fusion.log import Folder

HERE, THERE = "ACME.XNAS", "ACME.XLON"


async def test_one_ticker_on_two_venues_is_two_symbols_with_books_and_prompts_of_their_own() -> None:
    folder = Folder(settings(), instruments=[instrument(HERE), instrument(THERE, tick="0.5")])
    messages = [bar(slot, price, symbol=symbol) for slot in range(20) for symbol, price in ((HERE, 100.0 + slot), (THERE, 900.0 - slot))]
    folder.feed(record(offset, message) for offset, message in enumerate(messages))

    assert folder.books.symbols(0) == {HERE, THERE}
    assert folder.book(HERE).bars["1m"].close[-1] == 119.0
    assert folder.book(THERE).bars["1m"].close[-1] == 881.0
    assert (await folder.prompt(HERE)).hash != (await folder.prompt(THERE)).hash


async def test_a_bar_that_forms_and_never_closes_is_forgotten_with_the_next_and_leaves_a_gap() -> None:
    folder = Folder(settings(), instruments=[instrument(HERE)])
    closed = [bar(slot, symbol=HERE) for slot in range(10)]
    never = bar(10, 150.0, symbol=HERE, closed=False)
    after = bar(11, symbol=HERE)
    folder.feed(record(offset, message) for offset, message in enumerate([*closed, never, after]))

    bars = folder.book(HERE).bars["1m"]
    assert bars.forming is None
    assert bars.missing_in(3) == 1
    assert 150.0 not in bars.close
    late = folder.intake.take(record(12, never), NullSink())
    assert late == "duplicate"  # its slot is over: there is no news in it


async def test_a_forming_bar_shows_in_the_prompt_until_a_later_one_forms() -> None:
    folder = Folder(settings(), instruments=[instrument(HERE)])
    closed = [bar(slot, symbol=HERE) for slot in range(10)]
    folder.feed(record(offset, message) for offset, message in enumerate([*closed, bar(10, 150.0, symbol=HERE, closed=False)]))
    first = await folder.prompt(HERE)
    folder.feed([record(11, bar(11, 160.0, symbol=HERE, closed=False))])
    forming = folder.book(HERE).bars["1m"].forming
    assert forming is not None
    assert forming.close == 160.0
    assert (await folder.prompt(HERE)).hash != first.hash
