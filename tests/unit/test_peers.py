"""The comparison with other workers counts what it says it counts, and every peer has its file and its lock."""

from __future__ import annotations

import pytest

from benchmarks.peers.catalogue import CLIENTS, PEERS, Peer
from benchmarks.peers.contest import VALIDITY_MS, Plan, figures
from benchmarks.peers.site import Out, Sent


def out(symbol: str, age_ms: int, *, record_ms: int = 1_000) -> Out:
    return Out(symbol, 60_000, record_ms, record_ms + age_ms, 1_000, 900)


def test_figures_tell_signals_on_time_from_late_ones_and_count_a_bar_once() -> None:
    sent = [Sent(symbol, 60_000, 1_000) for symbol in "abcd"]
    row = figures(sent, [out("a", 100), out("a", 200), out("b", VALIDITY_MS), out("c", VALIDITY_MS + 1)], 11_000)
    assert (row["bars"], row["on time"], row["late"]) == (4, 2, 1)
    assert row["decisions/s"] == pytest.approx(0.4)
    assert (row["cached"], row["tokens a prompt"]) == (0.9, 1_000)
    assert row["age 50 % s"] == pytest.approx(1.6)


def test_nothing_published_has_no_age() -> None:
    row = figures([Sent("a", 60_000, 1_000)], [], 2_000)
    assert (row["on time"], row["age 50 % s"]) == (0, None)


def test_the_rush_offers_the_symbols_by_turns() -> None:
    plan = Plan(symbols=3, window_bars=80, per_s=0.5, many_s=2.0, burst=1)
    assert plan.rush == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_every_peer_has_its_file_and_its_lock(peer: Peer) -> None:
    assert (CLIENTS / peer.file).is_file()
    assert "--hash=" in (CLIENTS / "requirements" / f"{peer.requirements}.txt").read_text()
