"""A process's memory: the collector looks seldom and still finds cycles, and free memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import gc, weakref
from services.core import memory_tuning

class Cycle:
    def __init__(self):
        self.me = self

memory_tuning.freeze()
assert gc.get_freeze_count() > 1_000, gc.get_freeze_count()
gone = weakref.ref(Cycle())
passes = gc.get_stats()[0]["collections"]
held = [[] for _ in range(9_000)]
assert gc.get_stats()[0]["collections"] == passes, "a pass came although few objects are new"
held += [[] for _ in range(9_000)]
assert gone() is None, "a cycle was not found"
"""


def test_a_settled_process_looks_seldom_for_cycles_and_finds_them() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


_FRAGMENTED = """
from services.core.memory_tuning import heap_trimmer

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

trim = heap_trimmer()
before = resident_mb()
blocks = [bytes(3_000) for _ in range(20_000)]
kept = blocks[::500]
blocks.clear()
held = resident_mb() - before
assert held > 30, "the C library has returned the memory by itself"
trim()
assert resident_mb() - before < held / 4, (before, held, resident_mb())
"""


def test_pages_that_hold_nothing_go_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", _FRAGMENTED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
