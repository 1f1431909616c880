"""A blind run shows the model neither symbol nor price level nor date, tells nothing of later bars, and is reported beside the other."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import AuditRecord
from services.backtest.backtest_command import BLIND, begin
from services.backtest.backtest_plan import prepare
from services.backtest.blind import FIRST_CLOSE, disguises_of
from services.backtest.checkpoint import AUDIT, Checkpoint, RunFolder, read_checkpoint
from services.backtest.request import BacktestRequest
from services.core.settings import SettingsError
from services.replay.audit_trail import read_trail_file
from services.replay.log_source import FileLog
from services.replay.prompt_rebuilder import PromptRebuilder
from services.replay.training_command import rebuilt_prompts
from services.replay.verify_audit import AuditVerifier
from tests.unit.backtest.build import OPTIONS, SYMBOLS, walk
from tests.unit.fusion.build import instrument
from tests.unit.fusion.log import TOKENIZER

BARS = 120


@pytest.fixture
def options(tmp_path: Path) -> BacktestRequest:
    """Return options for candles whose prices lie around 3,700."""
    file = tmp_path / "bars.csv"
    rows = [
        f"{c.symbol},{c.ts_open_ms},{c.ts_close_ms},{c.open * 37:.2f},{c.high * 37:.2f},{c.low * 37:.2f},{c.close * 37:.2f},{c.volume}"
        for c in walk(BARS)
    ]
    file.write_text("symbol,ts_open_ms,ts_close_ms,open,high,low,close,volume\n" + "\n".join(rows) + "\n")
    return dataclasses.replace(OPTIONS, data=(str(file),), blind=True)


async def _prompts(folder: Path) -> list[str]:
    """Return every prompt of a run as text, each checked against its hash."""
    log, trail = FileLog(folder / "log.jsonl.gz", None), read_trail_file(folder / AUDIT)
    rebuilder = PromptRebuilder(log.settings, TOKENIZER)
    verdict = await AuditVerifier([rebuilder], log, lambda _: None).verify(trail)
    assert verdict.all_match
    asked = [entry for entry in trail.entries if entry.record.prompt_hash is not None]
    texts = ["".join(rebuilder.prompts.text(rebuilt.plan)) async for _, rebuilt in rebuilt_prompts(asked, rebuilder, log)]
    assert len(texts) == len(asked) == verdict.matched > 0
    return texts


async def test_the_prompts_of_a_blind_run_tell_neither_symbol_nor_date_nor_price_level(tmp_path: Path, options: BacktestRequest) -> None:
    assert await begin(options, tmp_path / "run", None, resume=False, restart=False) == 0
    shown, hidden = await _prompts(tmp_path / "run"), await _prompts(tmp_path / "run" / BLIND)
    legend_end = hidden[0].index("Instrument ")
    assert any(symbol in text for text in shown for symbol in SYMBOLS)
    for text in hidden:
        body = text[legend_end:]
        assert not any(symbol in body or symbol.partition(".")[0] in body for symbol in SYMBOLS)
        assert re.search(r"\d{4}-\d\d-\d\d|^-- \d{4}$", body, flags=re.MULTILINE) is None
        assert re.search(r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b", body) is None
        assert "Now day " in body
        closes = [float(found) for found in re.findall(r"^\d{4} +(\d+\.\d+) ", body, flags=re.MULTILINE)]
        assert closes
        assert all(FIRST_CLOSE / 2 < close < FIRST_CLOSE * 2 for close in closes)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1_000), shown=st.integers(5, 40), more=st.integers(1, 40))
def test_a_disguise_tells_nothing_of_later_bars(seed: int, shown: int, more: int) -> None:
    candles = sorted(walk(shown + more, seed), key=lambda bar: bar.ts_close_ms)
    early = [bar for bar in candles if bar.ts_close_ms <= candles[0].ts_close_ms + shown * 60_000]
    instruments = [instrument(symbol) for symbol in sorted({bar.symbol for bar in early})]
    before, after = disguises_of(early, instruments), disguises_of(candles, instruments)
    assert before == after
    for bar in early:
        other = before[bar.symbol].candle(bar)
        assert other.low <= min(other.open, other.close) <= max(other.open, other.close) <= other.high
        assert other.close / before[bar.symbol].price_factor == pytest.approx(bar.close, rel=2e-4)
    for symbol, disguise in before.items():
        first = next(bar for bar in early if bar.symbol == symbol)
        assert disguise.candle(first).close == FIRST_CLOSE
        assert symbol.partition(".")[0] not in disguise.name


async def test_both_runs_are_reported_each_saying_what_the_model_was_shown(
    tmp_path: Path, options: BacktestRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    assert await begin(options, tmp_path / "run", page, resume=False, restart=False) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "shown to the model" in said
    assert "hidden from the model" in said
    for name, state in ((page, "shown"), (tmp_path / "report-blind.html", "hidden")):
        text = name.read_text()
        assert "Symbol and dates" in text
        assert f"With them {state}" in text
        assert "bars decided on in both runs" in text


async def test_a_blind_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path, options: BacktestRequest) -> None:
    assert await begin(options, tmp_path / "whole", None, resume=False, restart=False) == 0
    assert await begin(dataclasses.replace(options, blind=False), tmp_path / "run", None, resume=False, restart=False) == 0
    checkpoint = read_checkpoint(tmp_path / "run")
    assert checkpoint is not None
    checkpoint.options = options
    with RunFolder(tmp_path / "run", checkpoint) as folder:
        folder.save()
    hidden = await prepare(options, hidden=True)
    with RunFolder(tmp_path / "run" / BLIND, Checkpoint(options, hidden.fingerprint)) as folder:
        folder.save()
    assert await begin(options, tmp_path / "run", None, resume=True, restart=False) == 0
    for inside in (Path(), Path(BLIND)):
        audits = [(tmp_path / name / inside / AUDIT).read_bytes() for name in ("whole", "run")]
        assert audits[0] == audits[1]
        assert [AuditRecord.decode(line) for line in audits[0].splitlines()]


async def test_a_log_cannot_be_played_blind(tmp_path: Path, options: BacktestRequest) -> None:
    assert await begin(dataclasses.replace(options, blind=False), tmp_path / "run", None, resume=False, restart=False) == 0
    of_log = dataclasses.replace(options, data=(str(tmp_path / "run" / "log.jsonl.gz"),), assignments=(), intervals=None)
    with pytest.raises(SettingsError, match="--blind needs candles"):
        await prepare(of_log)
