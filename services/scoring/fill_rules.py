"""What a fill takes and costs: by the settings, and by what the instrument says of itself. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from schemas import Instrument
from services.core.settings import ScoringSettings

_BPS: Final = 10_000.0


@dataclass(frozen=True, slots=True)
class FillRules:
    """How orders in one instrument are filled.

    `cost_bps` of the price and `fee` (in units of the price) are paid on each side, `slippage_bps` on each fill that is not at a
    limit. With an `instrument` whose ticks are asked for, limits and targets are filled only when the market trades beyond them.
    A close that is more than `max_jump` times the one before it, or the inverse, is suspected to follow a split that nobody published.
    """

    cost_bps: float
    slippage_bps: float
    fee: float = 0.0
    ticks_of: Instrument | None = None
    max_jump: float = math.inf

    @classmethod
    def of(cls, settings: ScoringSettings, max_jump: float, instrument: Instrument) -> FillRules:
        """Return the rules for `instrument`: what it says of fees and slippage goes before the settings.

        `max_jump` is the setting `fusion.max_jump`.
        """
        return cls(
            settings.cost_bps if instrument.fee_bps is None else instrument.fee_bps,
            settings.slippage_bps if instrument.slippage_bps is None else instrument.slippage_bps,
            (instrument.fee_per_unit or 0.0) / instrument.multiplier,
            instrument if settings.trade_through else None,
            max_jump,
        )

    def tick(self, price: str) -> Decimal:
        """Return by how much the market must trade beyond a resting order at `price` to fill it."""
        return Decimal(0) if self.ticks_of is None else self.ticks_of.increment_at(Decimal(price))

    def slippage(self, price: float) -> float:
        """Return what a market fill at `price` is worse than it."""
        return abs(price) * self.slippage_bps / _BPS

    def costs(self, bought: float, sold: float) -> float:
        """Return what both sides cost together, in units of the price."""
        return (bought + sold) * self.cost_bps / _BPS + 2 * self.fee
