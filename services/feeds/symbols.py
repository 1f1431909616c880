"""The symbols in files against those of Aquiline: `BTC/USDT` in a file is `BTC-USDT.BINA` where `--symbol` says so.

What `--symbol` says is never passed over: a file's symbol either is the one it names, or is mapped by it, or is an error.
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
    """What `--symbol` says: one symbol, or what the names in a file stand for."""

    only: str | None
    mapped: Mapping[str, str]

    @classmethod
    def of(cls, text: str | None) -> Symbols:
        """Return what `AAPL.XNAS`, or `BTC/USDT=BTC-USDT.BINA` (several with commas), says; raise ValueError when it is neither."""
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
        """Return the symbol that a file's `name` stands for, None being a file that names none; raise ValueError, LookupError.

        LookupError means that `--symbol` is about another symbol than this one.
        """
        if name is None:
            if self.only is None:
                raise ValueError(
                    "no column names a symbol; give it with --symbol, such as AAPL.XNAS"
                    if not self.mapped
                    else "no column names a symbol that --symbol could map; give it alone, such as --symbol AAPL.XNAS"
                )
            return self.only
        if name in self.mapped:
            return self.mapped[name]
        if self.only is not None:
            if same(name, self.only):
                return self.only
            raise LookupError(f"--symbol {self.only} names another; if they are the same, say --symbol '{name}={self.only}'")
        if re.fullmatch(SYMBOL_PATTERN, name):
            return name
        raise ValueError(f"which names no venue; say what it stands for with --symbol '{name}={_suggested(name)}'")


def same(name: str, symbol: str) -> bool:
    """Return whether a file's `name` is that of `symbol`, but for its venue: `BTC/USDT:USDT` is `BTC-USDT.BINA`."""
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
        raise ValueError(f"--symbol {symbol!r} is no instrument with its venue, such as AAPL.XNAS, BTC-USD.CBSE or BRK.B.XNYS")
    return symbol


def _suggested(name: str) -> str:
    base = re.sub(r"[^A-Z0-9]+", "-", name.split(":", maxsplit=1)[0].upper()).strip("-") or "AAPL"
    return f"{base}.VENUE"
