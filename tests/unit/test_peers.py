"""The comparison with other workers counts what it says it counts, and every peer has its file and its lock."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.peers.catalogue import BARE, CLIENTS, OURS, WORKERS, Peer
from benchmarks.peers.figures import answers, targets
from benchmarks.peers.plan import BACKLOG, COLD, COLD_RUSH, KILL, VALIDITY_MS, WARM, WARM_RUSH, Plan
from benchmarks.peers.site import Out, Sent


def out(symbol: str, age_ms: int, *, record_ms: int = 1_000) -> Out:
    return Out(symbol, 60_000, record_ms, record_ms + age_ms, 1_000, 900)


def test_figures_tell_signals_on_time_from_late_ones_and_count_a_bar_once() -> None:
    sent = [Sent(symbol, 60_000, 1_000) for symbol in "abcd"]
    row = answers(sent, [out("a", 100), out("a", 200), out("b", VALIDITY_MS), out("c", VALIDITY_MS + 1)], 11_000)
    assert (row["bars"], row["on time"], row["late"]) == (4, 2, 1)
    assert row["decisions/s"] == pytest.approx(0.4)
    assert (row["cached"], row["tokens a prompt"]) == (0.9, 1_000)
    assert row["age p50 s"] == pytest.approx(1.6)


def test_nothing_published_has_no_age() -> None:
    row = answers([Sent("a", 60_000, 1_000)], [], 2_000)
    assert (row["on time"], row["age p50 s"]) == (0, None)


def test_the_rush_offers_the_symbols_by_turns() -> None:
    plan = Plan(symbols=3, window_bars=80, per_s=0.5, many_s=2.0, backlog=1)
    assert plan.rush == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("peer", WORKERS.values(), ids=lambda peer: peer.name)
def test_every_peer_has_its_file_and_its_lock(peer: Peer) -> None:
    assert (CLIENTS / peer.file).is_file()
    assert "--hash=" in (CLIENTS / "requirements" / f"{peer.requirements}.txt").read_text()


def row(worker: str, phase: str, **figures: Any) -> dict[str, Any]:
    return {"worker": worker, "phase": phase, **figures}


def under_load(worker: str, on_time: int, p50_s: float | None, cached: float, phase: str) -> dict[str, Any]:
    return row(worker, phase, **{"on time": on_time, "age p50 s": p50_s, "age p95 s": p50_s, "cached": cached, "asked in vain %": 0.0})


@pytest.mark.parametrize(("phase", "wanted_s"), [(COLD, 0.1), (WARM, 0.1), (WARM_RUSH, 0.08), (COLD_RUSH, 0.1)])
def test_each_target_is_beside_the_peer_that_is_best_in_its_column(phase: str, wanted_s: float) -> None:
    rows = [
        under_load(OURS, 90, 0.09, 0.9, phase),
        under_load("one", 100, 0.2, 0.2, phase),
        under_load("two", 10, 0.1, 0.5, phase),
        under_load("three", 0, None, 0, phase),
    ]
    on_time, p50, _, cached, in_vain = targets(rows)
    assert (on_time.limit, on_time.got, on_time.met) == (100, 90, False)
    assert (p50.limit, p50.got, p50.met) == (wanted_s, 0.09, wanted_s >= 0.09)
    assert (cached.limit, cached.met, in_vain.met) == (0.5, True, True)


def test_a_worker_that_never_answered_in_time_after_a_kill_is_behind_any_that_did() -> None:
    ours, peer = (row(name, KILL, lost=0, twice=0, **{"first timely s": first}) for name, first in ((OURS, None), ("one", 9.0)))
    assert [target.met for target in targets([ours, peer])] == [True, True, False]
    assert [target.met for target in targets([peer | {"worker": OURS}, ours | {"worker": "one"}])] == [True, True]


def test_records_a_second_are_held_against_the_bare_loop() -> None:
    rows = [
        row(OURS, BACKLOG, **{"records/s": 79}),
        row(BARE.name, BACKLOG, **{"records/s": 100}),
        row("one", BACKLOG, **{"records/s": None}),
    ]
    (target,) = targets(rows)
    assert (target.got, target.limit, target.met) == (0.79, 0.8, False)
