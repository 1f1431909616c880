"""What the vision service promises on any bus; each bus' tests inherit it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import orjson
import pytest

from schemas import Candle, DeadLetter, DeadLetterReason, RunMode, Topic, VisionFeatures
from services.core.bus import Bus, BusError
from services.core.clock import SystemClock
from services.core.folding.disposition import Disposition
from services.core.health import Health
from services.core.settings import BusSettings, Settings, SettingsError, VisionSettings
from services.vision.book import ChartBook, Refusal, Window, WindowRules
from services.vision.features import compute_features
from services.vision.render import ChartSpec
from services.vision.service import VisionService
from tests.unit.core.folding import desk as folding
from tests.unit.core.folding.desk import until
from tests.unit.core.folding.service_spec import FoldingServiceSpec
from tests.unit.vision.build import MINUTE, MODE, START, MeanForecaster, candle, instrument, split

SPEC = ChartSpec(5)
SYMBOLS = [f"COIN{number}-USD.CBSE" for number in range(8)]


class Desk(folding.Desk[VisionService, VisionFeatures]):
    """A desk for the vision service."""

    target = Topic.VISION_FEATURES
    output = VisionFeatures
    instruments = tuple(instrument(symbol) for symbol in SYMBOLS)

    def __init__(self, bus: Bus, group: str) -> None:
        super().__init__(bus)
        self.settings = Settings(
            run_mode=MODE, bus=BusSettings(url="memory://"), vision=VisionSettings(group=group, window_bars=5, batch=6, max_gap_bars=2)
        )
        self.model = MeanForecaster(SPEC)

    def service(self) -> VisionService:
        return VisionService(self.bus, self.settings, SystemClock(), self.model, Health())


def market(count: int, start: int = 0) -> list[Candle]:
    return [
        candle(slot, 100 + (slot * 7 + index) % 11, symbol=symbol)
        for slot in range(start, start + count)
        for index, symbol in enumerate(SYMBOLS)
    ]


def expected(candles: list[Candle]) -> dict[str, list[VisionFeatures]]:
    """Return what the pure core makes of the candles, one window at a time."""
    rules = WindowRules(SPEC, max_gap_bars=2, max_jump=1.8)
    books = {symbol: ChartBook(instrument(symbol), "1m", rules) for symbol in SYMBOLS}
    out: dict[str, list[VisionFeatures]] = {symbol: [] for symbol in SYMBOLS}
    for one in candles:
        books[one.symbol].take(one, 0)
        window = books[one.symbol].window(())
        if isinstance(window, Window):
            out[one.symbol] += compute_features([window], MeanForecaster(SPEC))
    return out


class VisionServiceSpec(FoldingServiceSpec[VisionFeatures]):
    """Inherited by one class for each bus, which gives the fixture `desk`."""

    candles = 30
    restarted = 20

    def market_of(self, count: int, start: int = 0) -> list[Candle]:
        return market(count, start)

    def expected_of(self, candles: Sequence[Candle]) -> Mapping[str, list[VisionFeatures]]:
        return expected(list(candles))

    def identity(self, features: VisionFeatures) -> Hashable:
        return features.window_end_ms

    async def test_each_closed_bar_comes_out_as_what_the_model_sees_in_its_window(self, desk: Desk) -> None:
        candles = market(30)
        await desk.publish(Topic.CANDLES, candles)
        async with desk.running() as service:
            await until(lambda: service.counts.records == len(candles))
        assert await desk.features() == expected(candles)
        assert service.counts.dispositions == {Disposition.FOLDED: len(candles)}
        assert service.counts.refused == {Refusal.TOO_FEW_BARS: 4 * len(SYMBOLS)}
        assert service.counts.published + service.counts.refused.total() == len(candles)

    async def test_symbols_share_passes_of_the_model_up_to_the_batch(self, desk: Desk) -> None:
        candles = market(12)
        await desk.publish(Topic.CANDLES, candles)
        async with desk.running() as service:
            await until(lambda: service.counts.records == len(candles))
        assert max(desk.model.batches) == 6
        assert sum(desk.model.batches) == service.counts.published

    async def test_forming_bars_other_intervals_and_repeats_are_ignored(self, desk: Desk) -> None:
        symbol = SYMBOLS[0]
        ignored: list[Candle] = [
            candle(9, symbol=symbol, closed=False),
            candle(0, symbol=symbol, interval="1h"),
            candle(5, symbol=symbol),
        ]
        await desk.publish(Topic.CANDLES, [*[candle(slot, symbol=symbol) for slot in range(6)], *ignored])
        async with desk.running() as service:
            await until(lambda: service.counts.records == 9)
        assert service.counts.dispositions == {Disposition.FOLDED: 6, Disposition.FILTERED: 2, Disposition.DUPLICATE: 1}
        assert service.counts.published == 2

    async def test_a_stride_draws_every_so_manieth_bar(self, desk: Desk) -> None:
        desk.settings = desk.settings.model_copy(update={"vision": desk.settings.vision.model_copy(update={"stride": 3})})
        candles = market(30)
        await desk.publish(Topic.CANDLES, candles)
        async with desk.running() as service:
            await until(lambda: service.counts.records == len(candles))
        ends = {one.window_end_ms for one in (await desk.features())[SYMBOLS[0]]}
        assert ends == {START + slot * MINUTE for slot in range(5, 31) if (START // MINUTE + slot - 1) % 3 == 0}

    async def test_every_bad_record_is_put_aside_with_its_bytes_and_reason(self, desk: Desk) -> None:
        symbol = SYMBOLS[0]
        key, value = symbol.encode(), candle(0, symbol=symbol).encode()
        fields = orjson.loads(value)

        def changed(**changes: object) -> bytes:
            return orjson.dumps(fields | changes)

        bad: list[tuple[bytes | None, bytes | None, DeadLetterReason]] = [
            (key, b"not json", DeadLetterReason.MALFORMED),
            (key, None, DeadLetterReason.EMPTY),
            (key, changed(high=1.0), DeadLetterReason.INVALID),
            (key, changed(schema_version=2), DeadLetterReason.UNSUPPORTED_VERSION),
            (key, b'{"pad":"' + b"x" * 1_000_000 + b'"}', DeadLetterReason.TOO_LARGE),
            (SYMBOLS[1].encode(), value, DeadLetterReason.KEY_MISMATCH),
            (key, changed(run_mode="live"), DeadLetterReason.WRONG_RUN_MODE),
            (b"NO.XNAS", changed(symbol="NO.XNAS"), DeadLetterReason.UNKNOWN_INSTRUMENT),
            (key, changed(ts_open_ms=32_000_000_000_000, ts_close_ms=32_000_000_060_000), DeadLetterReason.FUTURE),
        ]
        await desk.publish_raw(Topic.CANDLES, [(one, two) for one, two, _ in bad])
        late = candle(-1, symbol=symbol).encode()
        conflict = candle(0, 101.0, symbol=symbol).encode()
        await desk.publish_raw(Topic.CANDLES, [(key, value), (key, conflict), (key, late)])
        async with desk.running() as service:
            await until(lambda: service.counts.records == len(bad) + 3)
        assert service.counts.dispositions == {Disposition.FOLDED: 1, Disposition.DEAD_LETTERED: len(bad) + 2}
        wanted = [(reason.value, two) for _, two, reason in bad] + [("conflict", conflict), ("late", late)]
        letters = await desk.read(Topic.DEAD_LETTERS)
        found = [(DeadLetter.from_headers(letter.headers).reason.value, letter.value) for letter in letters]
        assert sorted(found, key=repr) == sorted(wanted, key=repr)

    async def test_a_correction_draws_the_newest_window_again(self, desk: Desk) -> None:
        symbol = SYMBOLS[0]
        bars: list[Candle] = [candle(slot, symbol=symbol) for slot in range(6)]
        await desk.publish(Topic.CANDLES, [*bars, candle(4, 101.0, symbol=symbol, revision=1)])
        async with desk.running() as service:
            await until(lambda: service.counts.records == 7)
        first, second = (await desk.features())[symbol][-2:]
        assert first.window_end_ms == second.window_end_ms
        assert first.image.hash != second.image.hash

    async def test_a_split_announced_just_before_its_first_bar_is_known(self, desk: Desk) -> None:
        """And one that is not announced is refused by name, while other symbols go on."""
        announced, silent = SYMBOLS[:2]
        async with desk.running() as service:
            await desk.publish(Topic.CANDLES, [candle(slot, symbol=symbol) for symbol in (announced, silent) for slot in range(8)])
            await until(lambda: service.counts.records == 16)
            await desk.publish(Topic.INSTRUMENT_EVENTS, [split(START + 8 * MINUTE, 2.0, announced)])
            await desk.publish(Topic.CANDLES, [candle(8, 50.0, symbol=announced)])
            await until(lambda: service.counts.records == 17)
            await desk.publish(Topic.CANDLES, [candle(8, 50.0, symbol=silent)])
            await until(lambda: service.counts.records == 18)
        features = await desk.features()
        assert features[announced][-1].window_end_ms == START + 9 * MINUTE
        assert features[silent][-1].window_end_ms == START + 8 * MINUTE
        assert service.counts.refused[Refusal.SUSPECTED_SPLIT] == 1

    async def test_a_model_for_other_images_is_refused(self, desk: Desk) -> None:
        desk.model = MeanForecaster(ChartSpec(20))
        with pytest.raises(SettingsError, match=r"vision\.window_bars is 5, and the weights are for images of 20 bars"):
            desk.service()

    async def test_topics_that_are_missing_are_named(self, desk: Desk) -> None:
        desk.settings = desk.settings.model_copy(update={"run_mode": RunMode.REPLAY})
        with pytest.raises(BusError, match=r"topic 'replay\.candles' does not exist on .*; create it"):
            await desk.service().run()
