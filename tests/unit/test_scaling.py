"""docs/scaling.md holds the tables that the stored figures give, and needs follow from figures as the page says."""

from __future__ import annotations

from dataclasses import replace

from benchmarks import scaling


def test_the_page_holds_the_tables_of_the_stored_figures() -> None:
    page = scaling.DOCUMENT.read_text(encoding="utf-8")
    assert scaling.tables() in page, "write them anew: python -m benchmarks report"
    assert scaling.written(page) == page


def test_another_price_of_a_gpu_changes_the_cost_in_proportion() -> None:
    assert "| 4.00 | 34.00 | 334.00 |" in scaling.tables(gpu_price=1.0)
    assert "| 8.00 | 68.00 | 668.00 |" in scaling.tables(gpu_price=2.0)


def test_a_part_that_one_process_carries_is_no_bottleneck_and_the_most_numerous_part_comes_first() -> None:
    known = scaling.figures()
    fast = {"flash": 1e6, "fast": 1e6}
    ample = replace(known, rates=fast, decision_ms=1e-6, charts_per_s=1e9, candle_us=1e-6, bar_tokens=1e-6)
    assert scaling.needs(1_000, ample).bottleneck == ""
    assert scaling.needs(1_000, replace(ample, charts_per_s=100)).bottleneck == "vision service"
    slow = replace(ample, charts_per_s=100, decision_ms=25)
    assert scaling.needs(1_000, slow).bottleneck == "vision service, then worker"
    assert (scaling.needs(1_000, slow).vision, scaling.needs(1_000, slow).workers) == (67, 10)


def test_partitions_are_enough_for_the_most_numerous_member_and_a_multiple_of_twelve() -> None:
    for symbols in (1, 1_000, 10_000, 123_456):
        need = scaling.needs(symbols, scaling.figures())
        assert need.partitions % 12 == 0
        assert need.partitions >= max(need.workers, need.vision, need.market) > need.partitions - 12 or need.partitions == 12


def test_engines_hold_every_prefix_even_when_they_are_fast_enough() -> None:
    known = replace(scaling.figures(), rates={"flash": 1e9, "fast": 1e9})
    tokens = 10_000 * 2 * known.bars * known.bar_tokens
    assert scaling.needs(10_000, known).engines["flash"] * 1_600_000 >= tokens
