"""The page of metrics is written from their source."""

from __future__ import annotations

import pytest

from services.core.metrics_reference import main, page

_SOURCE = """
# --- One ---

# What it counts.
# And when to look.
A: Final = Counter("a_total", "A.", ["x", "y"])
B: Final = Gauge("b", "B.")
A.labels(1, 2)

# --- Two ---

# Another.
C: Final = Info("c", "C.")
"""


def test_the_page_is_up_to_date() -> None:
    assert main(["--check"]) == 0


def test_a_metric_is_told_with_its_labels_and_the_comment_above_it_and_twins_share_one() -> None:
    expected = [
        "## One",
        "",
        "**`a_total`** (counter by `x`, `y`), **`b`** (gauge). What it counts. And when to look.",
        "",
        "## Two",
        "",
        "**`c_info`** (info). Another.",
    ]
    assert expected == page(_SOURCE).splitlines()[-7:]


def test_a_metric_without_a_comment_is_refused() -> None:
    with pytest.raises(ValueError, match=r"metrics.py:4: \*\*`b`\*\* \(gauge\) has no comment"):
        page('# What it is.\nA: Final = Gauge("a", "A.")\n\nB: Final = Gauge("b", "B.")\n')
