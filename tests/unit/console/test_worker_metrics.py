"""Sums of the workers' metrics pages."""

from __future__ import annotations

from services.console.worker_metrics import summed

PAGE = """# TYPE aquiline_lanes gauge
aquiline_lanes{state="running"} 2
aquiline_lanes{state="queued"} 3
# TYPE aquiline_records_total counter
aquiline_records_total{topic="market-features",outcome="folded"} 10
aquiline_records_total{topic="vision-features",outcome="folded"} 5
aquiline_records_total{topic="market-features",outcome="duplicate"} 1
# TYPE aquiline_engine_silent_seconds gauge
aquiline_engine_silent_seconds{engine="sglang"} 4
# TYPE aquiline_accept_length_tokens histogram
aquiline_accept_length_tokens_bucket{le="+Inf"} 4
aquiline_accept_length_tokens_count 4
aquiline_accept_length_tokens_sum 10
"""


def test_the_pages_of_several_workers_are_added_up() -> None:
    state = summed([PAGE, PAGE, None, "<html>no metrics</html>"])
    assert (state.reachable, state.configured) == (2, 4)
    assert state.lanes == {"running": 4, "queued": 6}
    assert state.records == {"folded": 30, "duplicate": 2}
    assert state.engine_silent_s == 4
    assert state.accept_length == 2.5


def test_without_a_page_there_is_nothing_to_show() -> None:
    state = summed([])
    assert (state.reachable, state.configured, state.engine_silent_s, state.accept_length) == (0, 0, None, None)
