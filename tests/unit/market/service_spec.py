"""What the market service promises on any bus; each bus' tests inherit it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import orjson
import pytest

from schemas import Candle, DeadLetter, DeadLetterReason, MarketFeatures, RunMode, Topic
from schemas.dead_letter import PREFIX
from services.core.bus import Bus, BusError
from services.core.clock import SystemClock
from services.core.folding.disposition import Disposition
from services.core.health import Health
from services.core.settings import BusSettings, MarketSettings, Settings
from services.market.book import Book
from services.market.service import MarketService
from tests.unit.core.folding import desk as folding
from tests.unit.core.folding.desk import TOPICS, until
from tests.unit.core.folding.service_spec import FoldingServiceSpec
from tests.unit.market.build import MINUTE, MODE, MONDAY, candle, instrument

PLAN = {"1m": ["3m"]}
SYMBOLS = [f"COIN{number}-USD.CBSE" for number in range(12)]


def settings_for(group: str) -> Settings:
    return Settings(run_mode=MODE, bus=BusSettings(url="memory://"), market=MarketSettings(group=group, aggregate=PLAN))


class Desk(folding.Desk[MarketService, MarketFeatures]):
    """A desk for the market service."""

    target = Topic.MARKET_FEATURES
    output = MarketFeatures
    instruments = tuple(instrument(symbol) for symbol in SYMBOLS)

    def __init__(self, bus: Bus, group: str) -> None:
        super().__init__(bus)
        self.settings = settings_for(group)

    def service(self) -> MarketService:
        return MarketService(self.bus, self.settings, SystemClock(), Health())


def market(count: int, start: int = 0) -> list[Candle]:
    return [
        candle(MONDAY + number * MINUTE, 10 + (number * 7 + len(symbol) + index) % 11, symbol=symbol)
        for number in range(start, start + count)
        for index, symbol in enumerate(SYMBOLS)
    ]


def expected(candles: list[Candle]) -> dict[str, list[MarketFeatures]]:
    out: dict[str, list[MarketFeatures]] = {}
    books = {symbol: Book(instrument(symbol), (), PLAN) for symbol in SYMBOLS}
    for one in candles:
        out.setdefault(one.symbol, []).extend(books[one.symbol].take(one, 0).out)
    return out


class MarketServiceSpec(FoldingServiceSpec[MarketFeatures]):
    """Inherited by one class for each bus, which gives the fixture `desk`."""

    candles = 50
    restarted = 30

    def market_of(self, count: int, start: int = 0) -> list[Candle]:
        return market(count, start)

    def expected_of(self, candles: Sequence[Candle]) -> Mapping[str, list[MarketFeatures]]:
        return expected(list(candles))

    def identity(self, features: MarketFeatures) -> Hashable:
        return (features.interval, features.ts_close_ms, features.closed, features.volume)

    async def test_each_candle_comes_out_with_features_and_its_higher_bars_in_order(self, desk: Desk) -> None:
        candles = market(40)
        await desk.publish(Topic.CANDLES, candles)
        async with desk.running() as service:
            await until(lambda: service.counts.records == len(candles))
        assert await desk.features() == expected(candles)
        assert service.counts.dispositions == {Disposition.FOLDED: len(candles)}

    async def test_every_bad_record_is_put_aside_with_its_bytes_and_reason(self, desk: Desk) -> None:
        good = candle(MONDAY, symbol=SYMBOLS[0])
        key, value = good.symbol.encode(), good.encode()
        fields = orjson.loads(value)

        def changed(**changes: object) -> bytes:
            return orjson.dumps(fields | changes)

        bad: list[tuple[bytes | None, bytes | None, DeadLetterReason]] = [
            (key, b"not json", DeadLetterReason.MALFORMED),
            (key, value[:-9], DeadLetterReason.MALFORMED),
            (key, b"[1]", DeadLetterReason.MALFORMED),
            (key, None, DeadLetterReason.EMPTY),
            (key, b"", DeadLetterReason.EMPTY),
            (key, changed(close="ten"), DeadLetterReason.INVALID),
            (key, b"{}", DeadLetterReason.INVALID),
            (key, value.replace(b'"volume":1.0', b'"volume":NaN'), DeadLetterReason.INVALID),
            (key, value.replace(b'"volume":1.0', b'"volume":1e999'), DeadLetterReason.INVALID),
            (key, changed(high=1.0), DeadLetterReason.INVALID),
            (key, changed(schema_version=2), DeadLetterReason.UNSUPPORTED_VERSION),
            (key, b'{"pad":"' + b"x" * 1_000_000 + b'"}', DeadLetterReason.TOO_LARGE),
            (b"", value, DeadLetterReason.KEY_MISMATCH),
            (None, value, DeadLetterReason.KEY_MISMATCH),
            (SYMBOLS[1].encode(), value, DeadLetterReason.KEY_MISMATCH),
            (key, changed(run_mode="live"), DeadLetterReason.WRONG_RUN_MODE),
            (b"NO.XNAS", changed(symbol="NO.XNAS"), DeadLetterReason.UNKNOWN_INSTRUMENT),
            (key, changed(ts_open_ms=32_000_000_000_000, ts_close_ms=32_000_000_060_000), DeadLetterReason.FUTURE),
        ]
        await desk.publish_raw(Topic.CANDLES, [(one, two) for one, two, _ in bad])
        # These need the candle before them, so they share its partition by its key.
        after = [
            (value, None),
            (value, None),
            (changed(close=10.05), DeadLetterReason.CONFLICT),
            (candle(MONDAY - MINUTE, symbol=SYMBOLS[0]).encode(), DeadLetterReason.LATE),
            (changed(ts_open_ms=MONDAY + MINUTE, ts_close_ms=MONDAY + 2 * MINUTE, news="unknown field"), None),
        ]
        await desk.publish_raw(Topic.CANDLES, [(key, one) for one, _ in after])
        async with desk.running() as service:
            await until(lambda: service.counts.records == len(bad) + len(after))
        counts = service.counts
        assert counts.dispositions == {Disposition.FOLDED: 2, Disposition.DUPLICATE: 1, Disposition.DEAD_LETTERED: len(bad) + 2}
        wanted = sorted(
            [(reason.value, two) for _, two, reason in bad] + [(reason.value, one) for one, reason in after if reason],
            key=repr,
        )
        letters = await desk.read(Topic.DEAD_LETTERS)
        found = [(DeadLetter.from_headers(letter.headers), letter) for letter in letters]
        assert sorted([(header.reason.value, letter.value) for header, letter in found], key=repr) == wanted
        sources = {(record.partition, record.offset): record for record in await desk.read(Topic.CANDLES)}
        for header, letter in found:
            assert header.topic == TOPICS[Topic.CANDLES]
            assert header.detail
            source = sources[header.partition, header.offset]
            assert (source.key, source.value) == (letter.key, letter.value)
            assert all(name.startswith(PREFIX) for name, _ in letter.headers)

    async def test_an_instrument_published_just_before_its_first_candle_is_known(self, desk: Desk) -> None:
        late = "LATE-USD.CBSE"
        async with desk.running() as service:
            await desk.publish(Topic.CANDLES, market(1))
            await until(lambda: service.counts.records == len(SYMBOLS))
            await desk.publish_raw(Topic.INSTRUMENTS, [(b"broken", b"{}"), (late.encode(), instrument(late).encode())])
            await desk.publish(Topic.CANDLES, [candle(MONDAY, symbol=late)])
            await until(lambda: service.counts.records == len(SYMBOLS) + 1)
        assert service.counts.dispositions == {Disposition.FOLDED: len(SYMBOLS) + 1}

    async def test_topics_that_are_missing_are_named(self, desk: Desk) -> None:
        desk.settings = desk.settings.model_copy(update={"run_mode": RunMode.REPLAY})
        with pytest.raises(BusError, match=r"topic 'replay\.candles' does not exist on .*; create it"):
            await desk.service().run()
