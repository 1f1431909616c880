"""By what events restate the bars before them, however many there are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas import Dividend, RunMode
from services.core.restatement import LEAST_PRICE, factors


@given(close=st.floats(LEAST_PRICE, 1e6), shares=st.lists(st.floats(0.01, 0.999_999), max_size=200))
def test_dividends_one_after_the_other_never_take_the_last_price_below_the_least(close: float, shares: list[float]) -> None:
    for share in shares:
        paid = Dividend(schema_version=1, run_mode=RunMode.DEMO, symbol="X.XNYS", event="dividend", amount=close * share, effective_ms=1)
        before, close = close, close / factors(paid, close).price
        assert close == before or close >= LEAST_PRICE * 0.999_999
