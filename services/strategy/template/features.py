"""Features of this strategy's own: `aquiline demo --strategy` and `market.features_file` call `features` for every bar."""

from typing import Any

MOMENTUM_BARS = 12


def features(bars: Any) -> dict[str, float]:
    """Return features by name; leave one out while it is not defined.

    `bars` has the float arrays `open`, `high`, `low`, `close` and `volume`, oldest first, at most 288 long. The features are
    those of the last bar. The same bars must give the same features: do not read the clock or files, draw random numbers or keep state.
    """
    if len(bars.close) <= MOMENTUM_BARS:
        return {}
    return {"mom_12": bars.close[-1] / bars.close[-1 - MOMENTUM_BARS] - 1}
