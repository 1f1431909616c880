"""Calls that may be prefilled beside a scored one ask for log-probabilities as it does."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from services.inference.engine import EngineRequest, Sampling
from services.inference.sglang_client import generate_body


@pytest.mark.parametrize("beside_scores", [True, False])
def test_a_call_asks_for_log_probabilities_where_the_server_also_scores(*, beside_scores: bool) -> None:
    request = EngineRequest("0" * 32, "A", "fast", np.arange(3, dtype=np.int32), Sampling(1), 1, lambda: ("", ""), {})
    body = orjson.loads(generate_body(request, beside_scores=beside_scores))
    assert ("token_ids_logprob" in body, "return_logprob" in body) == (beside_scores, beside_scores)
