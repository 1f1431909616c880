"""The text that the simulator's tokenizer is trained on: prompts as the worker writes them, from the shipped bars, with answers.

`python -m benchmarks.prompt_corpus` writes it anew; `python -m services.inference.simulator.train_tokenizer` then takes it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson

from schemas import Candle, Instrument, InstrumentEvent, RunMode, VisionFeatures
from services.core.calendar import SessionCalendar
from services.core.clock import SystemClock
from services.core.fusion_settings import FusionSettings
from services.core.settings import RedisSettings
from services.core.tokenizer import Tokenizer
from services.feeds.samples import INTERVAL, load_instruments, load_splits, load_stocks
from services.fusion.prompt.builder import PromptBuilder, fingerprint
from services.fusion.prompt.store import PrefixStore
from services.fusion.state.book import Book
from services.inference.rules import decide
from services.inference.simulator.answers import VOICE
from services.market.book import Book as MarketBook
from services.vision.recorded import load_recorded

DATA: Final = Path("services/inference/data")
SETTINGS: Final = FusionSettings(intervals=[INTERVAL, "1w"])
TEMPLATE: Final = "minicpm4"
WHOLE_PROMPTS: Final = 3
"""Of each symbol, evenly apart, the last one at its last bar."""
TAILS: Final = 32
"""Of each symbol, evenly apart, each with its answer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DATA / "tokenizer-corpus.txt", help="file to write")
    options = parser.parse_args()
    text = corpus()
    options.out.write_text(text, encoding="utf-8")
    print(f"{len(text.encode())} bytes, {text.count(chr(10))} lines -> {options.out}")


def corpus() -> str:
    """Return prompts, tails and answers of the five stocks."""
    stocks = load_stocks(RunMode.DEMO)
    splits = load_splits(RunMode.DEMO)
    vision = load_recorded()
    pieces: list[str] = []
    for instrument in load_instruments(RunMode.DEMO):
        own = [split for split in splits if split.symbol == instrument.symbol]
        pieces.extend(_pieces(instrument, own, stocks[instrument.symbol], vision))
    return "".join(pieces)


def _pieces(
    instrument: Instrument, splits: list[InstrumentEvent], candles: list[Candle], vision: dict[tuple[str, int], VisionFeatures]
) -> Iterator[str]:
    """Fold one symbol's bars as the market service and the worker do, and yield text on the way."""
    market = MarketBook(instrument, splits, {INTERVAL: ["1w"]})
    book = Book(instrument, SETTINGS, SessionCalendar.of(instrument.calendar))
    for split in splits:
        book.add_restatement(split)
    prompts = _prompts()
    whole_every, tail_every = len(candles) // WHOLE_PROMPTS, max(1, len(candles) // TAILS)
    for at, candle in enumerate(candles):
        for features in market.take(candle, at).out:
            book.fold_market(features)
        seen = vision.get((instrument.symbol, candle.ts_close_ms))
        if seen is not None:
            book.fold_vision(seen)
        left = len(candles) - 1 - at
        if left % whole_every and left % tail_every:
            continue
        plan = prompts.plan(book, INTERVAL, "fast")
        if left % whole_every == 0:
            yield "".join(prompts.text(plan))
        else:
            yield plan.tail
        yield orjson.dumps(decide(plan.facts, voice=VOICE)).decode() + "\n"


def _prompts() -> PromptBuilder:
    """Return a builder whose texts are wanted and whose ids are not: any tokenizer will do."""
    tokenizer = Tokenizer.from_file(DATA / "tokenizer.json")
    redis = RedisSettings()
    store = PrefixStore(None, redis, SystemClock(), fingerprint(tokenizer, TEMPLATE, SETTINGS.strategy))
    return PromptBuilder(SETTINGS, tokenizer, TEMPLATE, store, redis.local_bytes)


if __name__ == "__main__":
    main()
