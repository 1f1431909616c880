"""Every layout is recognised and read as its users mean it, and no bar of any is known before it ended."""

from __future__ import annotations

from itertools import pairwise

import pytest

from schemas import interval_ms
from services.feeds.read_options import utc
from tests.cases.layouts import FILES, FOLDER, PAGE, LayoutFile, page, read


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.file)
def test_a_layout_is_recognised_and_its_bars_are_at_their_times(file: LayoutFile) -> None:
    got = read(file)
    assert (got.layout, len(got.candles)) == (file.layout, file.bars)
    assert (utc(got.candles[0].ts_open_ms), utc(got.candles[-1].ts_close_ms)) == (file.first, file.last)


def test_every_file_of_the_folder_is_in_the_table() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {file.file for file in FILES}


def test_the_page_shows_what_the_reader_gives() -> None:
    assert page() == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.file)
def test_no_bar_of_a_layout_is_longer_than_its_interval_or_overlaps_the_next(file: LayoutFile) -> None:
    candles = read(file).candles
    assert all(0 < one.ts_close_ms - one.ts_open_ms <= interval_ms(one.interval) for one in candles)
    assert all(before.ts_close_ms <= after.ts_open_ms for before, after in pairwise(candles))
