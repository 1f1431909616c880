"""How large a position is opened: equal weights or a fixed risk to the stop, within caps on all positions and on each symbol. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from services.core.settings import PositionSettings


@dataclass(frozen=True, slots=True)
class Sizing:
    """The rules of size. Shares are fractions of the equity at the moment of opening."""

    method: Literal["equal", "risk"] = "equal"
    """`equal`: `max_gross` in equal parts, one a symbol. `risk`: as much as loses `risk_per_position` at the stop."""
    risk_per_position: float = 0.01
    max_gross: float = 1.0
    """Cap on the sum of all positions, long and short alike."""
    max_symbol: float = 1.0
    """Cap on the position in one symbol."""

    @classmethod
    def of(cls, settings: PositionSettings) -> Self:
        """Return the rules in `settings`."""
        return cls(settings.sizing, settings.risk_per_position, settings.max_gross, settings.max_symbol)

    def units(self, *, price: float, stop: float, cost: float, equity: float, gross: float, symbols: int) -> float:
        """Return the units to open at `price`, 0 where there is no room.

        `stop` and `price` are in one unit of account, `cost` is what opening takes of each unit of the position's worth. `equity` and
        `gross` (the worth of all open positions) are of the moment before, and `symbols` is how many symbols share the capital. The
        caps hold after the costs of opening are paid.
        """
        if equity <= 0:
            return 0.0
        if self.method == "equal":
            wanted = self.max_gross * equity / symbols
        else:
            # A stop at the price would ask for an endless position: the caps then bound it alone.
            distance = abs(price - stop) / price
            wanted = self.risk_per_position * equity / distance if distance > 0 else self.max_symbol * equity
        of_symbol = self.max_symbol * equity / (1 + self.max_symbol * cost)
        of_all = (self.max_gross * equity - gross) / (1 + self.max_gross * cost)
        return max(0.0, min(wanted, of_symbol, of_all)) / price
