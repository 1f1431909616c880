"""Maps the symbols of a file to Aquiline's: `BTC/USDT` to `BTC-USDT.BINA`.

`--symbol` always applies: a file's symbol matches it, is mapped by it, or is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.base import SYMBOL_PATTERN

_ALIASES: Final = {"XBT": "BTC"}
"""Kraken's code for Bitcoin."""


@dataclass(frozen=True, slots=True)
class Symbols:
    """The value of `--symbol`: one symbol, or a mapping of the file's names."""

    only: str | None
    mapped: Mapping[str, str]

    @classmethod
    def of(cls, text: str | None) -> Symbols:
        """Parse `AAPL.XNAS` or `BTC/USDT=BTC-USDT.BINA` (comma-separated); raise ValueError."""
        if text is None:
            return cls(None, {})
        if "=" not in text:
            return cls(_checked(text), {})
        mapped = {}
        for pair in text.split(","):
            name, _, symbol = pair.rpartition("=")
            if not name.strip():
                raise ValueError(f"--symbol {text!r}: {pair!r} is not of the form NAME=SYMBOL, such as BTC/USDT=BTC-USDT.BINA")
            mapped[name.strip()] = _checked(symbol.strip())
        return cls(None, mapped)

    def symbol(self, name: str | None) -> str:
        """Return the symbol of a file's `name` (None: the file has none); raise ValueError or LookupError.

        LookupError means that `--symbol` names or maps different symbols.
        """
        if name is None:
            if self.only is None:
                raise ValueError(
                    "no column has a symbol; set --symbol, such as AAPL.XNAS"
                    if not self.mapped
                    else "no column has a symbol that --symbol could map; set it alone, such as --symbol AAPL.XNAS"
                )
            return self.only
        if name in self.mapped:
            return self.mapped[name]
        if self.only is not None:
            if same(name, self.only):
                return self.only
            raise LookupError(f"--symbol {self.only} names another; if they are the same, set --symbol '{name}={self.only}'")
        if re.fullmatch(SYMBOL_PATTERN, name):
            return name
        if self.mapped:
            raise LookupError(f"--symbol maps {', '.join(map(repr, self.mapped))}; add '{name}={_suggested(name)}' to read it too")
        raise ValueError(f"which has no venue; map it with --symbol '{name}={_suggested(name)}'")


def same(name: str, symbol: str) -> bool:
    """Return whether a file's `name` is `symbol` without its venue, as `BTC/USDT:USDT` for `BTC-USDT.BINA`."""
    if name == symbol:
        return True
    wanted = _letters(symbol.rpartition(".")[0])
    forms = [name, *name.split(":"), name.rpartition(".")[0], re.sub(r"=[XF]$", "", name), name.split(" ", maxsplit=1)[0]]
    return any(wanted == _letters(form) for form in forms if form)


def _letters(name: str) -> str:
    text = re.sub(r"[^A-Z0-9]", "", name.upper())
    for alias, usual in _ALIASES.items():
        text = text.replace(alias, usual)
    return text


def _checked(symbol: str) -> str:
    if not re.fullmatch(SYMBOL_PATTERN, symbol):
        raise ValueError(f"--symbol {symbol!r} is not a symbol with its venue, such as AAPL.XNAS, BTC-USD.CBSE or BRK.B.XNYS")
    return symbol


def _suggested(name: str) -> str:
    base = re.sub(r"[^A-Z0-9]+", "-", name.split(":", maxsplit=1)[0].upper()).strip("-") or "AAPL"
    return f"{base}.VENUE"
