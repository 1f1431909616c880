"""The garbage collector's setting: what is there is left out of its passes, and cycles made later are still found."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import gc, weakref
from services.core import gc_tuning

class Cycle:
    def __init__(self):
        self.me = self

gc_tuning.freeze()
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
