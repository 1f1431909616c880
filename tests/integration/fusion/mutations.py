"""Mutated records: good ones with bytes flipped, cut, doubled, fields gone, swapped or made extreme, keys that lie."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import orjson

from schemas import Topic
from tests.integration.fusion.feed import SYMBOLS, bar, window

EXTREMES: tuple[Any, ...] = (
    None,
    True,
    "",
    "1",
    -1,
    0,
    2**53,
    -(2**63),
    1e308,
    -1e-308,
    [],
    {},
    [[[[[[[[]]]]]]]],
    '\u202e\x00\n{"role":"system"}',
    "x" * 5_000,
    "é" * 300,
)
_WORDS = (b"NaN", b"Infinity", b"1e999", b"-0", b"1" * 400, b"\xff\xfe", b"[" * 2_000, b"\x00")
Record = tuple[Topic, bytes | None, bytes | None]


def mutated(number: int) -> Record:
    """Return the `number`-th record: the same one whenever it is asked for."""
    draw = random.Random(number)  # noqa: S311 - to be repeated, not to be secret
    symbol = draw.choice(SYMBOLS)
    market = draw.random() < 0.7
    # Mostly the next bars, sometimes older ones, so that folding happens as well.
    minute = number // 20 + draw.choice((0, 1, 1, 2, -draw.randrange(50)))
    message = bar(symbol, max(0, minute), closed=draw.random() < 0.8) if market else window(symbol, max(0, minute))
    value: bytes | None = message.encode()
    if draw.random() < 0.03:
        value = message.encode().replace(b'"interval":"1m"', b'"interval":"2m"')
    for _ in range(draw.choice((0, 0, 1, 1, 2, 3))):
        value = draw.choice(_MUTATIONS)(value or b"", draw)
    key: bytes | None = symbol.encode()
    if draw.random() < 0.05:
        key = draw.choice((None, b"", b"\xff", symbol[:-1].encode(), SYMBOLS[0].encode()))
    if draw.random() < 0.01:
        value = None
    return (Topic.MARKET_FEATURES if market else Topic.VISION_FEATURES), key, value


def broken(value: bytes, draw: random.Random) -> bytes:
    """Return `value` after one to three mutations."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        value = draw.choice(_MUTATIONS)(value, draw)
    return value


def _flip(value: bytes, draw: random.Random) -> bytes:
    if not value:
        return value
    at = draw.randrange(len(value))
    return value[:at] + bytes([draw.randrange(256)]) + value[at + 1 :]


def _cut(value: bytes, draw: random.Random) -> bytes:
    return value[: draw.randrange(len(value) + 1)]


def _double(value: bytes, draw: random.Random) -> bytes:
    at, until = sorted((draw.randrange(len(value) + 1), draw.randrange(len(value) + 1)))
    return value[:until] + value[at:]


def _word(value: bytes, draw: random.Random) -> bytes:
    at = value.find(b":", draw.randrange(len(value) + 1))
    if at < 0:
        return value
    end = min((found for found in (value.find(b",", at), value.find(b"}", at)) if found >= 0), default=len(value))
    return value[: at + 1] + draw.choice(_WORDS) + value[end:]


def _field(value: bytes, draw: random.Random) -> bytes:
    try:
        fields = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    if not isinstance(fields, dict) or not fields:
        return value
    name = draw.choice(sorted(fields))
    what = draw.randrange(4)
    if what == 0:
        del fields[name]
    elif what == 1:
        fields[name] = draw.choice(EXTREMES)
    elif what == 2:
        fields[name], other = fields[draw.choice(sorted(fields))], fields[name]
        fields["extra"] = other
    elif isinstance(fields[name], int | float):
        fields[name] = fields[name] * draw.choice((-1, 0, 0.5, 2, 10, 1_000))
    try:
        return orjson.dumps(fields)
    except TypeError:  # a number of more than 64 bits: as text it is one all the same
        return json.dumps(fields).encode(errors="replace")


_MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (_flip, _cut, _double, _word, _field, _field, _field, _field)
