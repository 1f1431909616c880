"""Percentiles by nearest rank."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from services.core.percentile import percentile


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.floats(0.01, 1))
def test_a_percentile_is_the_smallest_value_that_covers_its_share(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(one <= found for one in values) >= math.ceil(share * len(values))
    assert sum(one < found for one in values) < math.ceil(share * len(values))
