"""What benchmarks aim at beside the version before: half of its time on the same machine."""

from __future__ import annotations

from typing import Any

from benchmarks import rebuild, restart
from benchmarks.peers.catalogue import OURS


def restarted(version: str, first_s: float, late: int) -> dict[str, Any]:
    return {"version": version, "worker": OURS, "first timely s": first_s, "late or none": late}


def test_a_restart_as_quick_as_in_the_version_before_misses_its_target_however_quick_both_are() -> None:
    absolute, _, relative, late = restart.targets([restarted("1234567", 2.0, 4), restarted("now", 1.5, 1)])
    assert (absolute.met, relative.limit, relative.got, relative.met) == (True, 1.0, 1.5, False)
    assert (late.limit, late.met) == (2.0, True)


def test_without_rows_of_the_version_before_there_is_nothing_to_compare_with() -> None:
    assert [target.limit for target in restart.targets([restarted("now", 1.5, 1)])] == [restart.LONGEST_S, restart.MOST_LATE]


def test_a_rebuild_is_compared_by_the_medians_of_both_versions() -> None:
    rows = [{"version": version, "seconds": seconds, "MB with prompts built": 200} for version, seconds in RUNS]
    slowest, _, relative = rebuild.targets(rows)
    assert (slowest.got, relative.limit, relative.got, relative.met) == (8.0, 5.0, 6.0, False)


RUNS = [("1234567", 9.0), ("1234567", 10.0), ("1234567", 30.0), ("now", 4.0), ("now", 6.0), ("now", 8.0)]
