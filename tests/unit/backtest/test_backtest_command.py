"""The command from its options to its files: refuses what would lose or mix runs, and writes the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from services.backtest.backtest_command import begin
from services.backtest.backtest_plan import prepare
from services.backtest.checkpoint import Checkpoint, RunFolder, RunFolderError, read_checkpoint
from services.backtest.request import BacktestRequest
from services.core.settings import SettingsError
from services.scoring.report.trials import trials_beside
from tests.unit.backtest.build import OPTIONS, walk


@pytest.fixture
def options(tmp_path: Path) -> BacktestRequest:
    """Return options for a file of candles."""
    file = tmp_path / "bars.csv"
    rows = [f"{c.symbol},{c.ts_open_ms},{c.ts_close_ms},{c.open},{c.high},{c.low},{c.close},{c.volume}" for c in walk(40)]
    file.write_text("symbol,ts_open_ms,ts_close_ms,open,high,low,close,volume\n" + "\n".join(rows) + "\n")
    return dataclasses.replace(OPTIONS, data=(str(file),))


def _change(options: BacktestRequest) -> None:
    file = Path(options.data[0])
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")


async def test_a_file_of_candles_becomes_a_report(tmp_path: Path, options: BacktestRequest, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    assert await begin(options, tmp_path / "run", page, resume=False, restart=False) == 0
    said = capsys.readouterr().out
    assert "Backtest on bars.csv" in said
    assert str(page) in said
    assert "<svg" in page.read_text() or "data:image" in page.read_text()
    checkpoint = read_checkpoint(tmp_path / "run")
    assert checkpoint is not None
    assert checkpoint.done


async def test_settings_that_are_tried_in_one_folder_are_counted_and_running_the_same_again_is_no_other_trial(
    tmp_path: Path, options: BacktestRequest
) -> None:
    folder = tmp_path / "run"
    dearer = dataclasses.replace(options, assignments=(*options.assignments, "scoring.cost_bps=9"))
    sized = dataclasses.replace(options, assignments=(*options.assignments, "positions.max_gross=0.5"))
    for one in (options, dearer, sized):
        assert await begin(one, folder, None, resume=False, restart=True) == 0
    assert await begin(sized, folder, None, resume=True, restart=False) == 0
    assert trials_beside(folder / "outcomes.jsonl").count == 2, "beside the last one"
    _change(options)
    assert await begin(options, folder, None, resume=False, restart=True) == 0
    assert trials_beside(folder / "outcomes.jsonl").count == 0, "on other data nothing was tried yet"


async def test_the_log_of_a_backtest_can_be_backtested(tmp_path: Path, options: BacktestRequest) -> None:
    assert await begin(options, tmp_path / "run", None, resume=False, restart=False) == 0
    of_log = dataclasses.replace(options, data=(str(tmp_path / "run" / "log.jsonl.gz"),), assignments=(), intervals=None)
    plan = await prepare(of_log)
    assert [one.symbol for one in plan.feed.instruments] == sorted({candle.symbol for candle in walk(40)})
    assert sum(step.size for step in plan.feed.steps()) == plan.feed.total > 40


async def test_an_unfinished_run_is_not_given_up_unless_told_to(tmp_path: Path, options: BacktestRequest) -> None:
    plan = await prepare(options)
    with RunFolder(tmp_path / "run", Checkpoint(plan.options, plan.fingerprint, steps=3)) as folder:
        folder.save()
    with pytest.raises(RunFolderError, match=r"holds an unfinished run; continue it with --resume"):
        await begin(options, tmp_path / "run", None, resume=False, restart=False)
    assert await begin(options, tmp_path / "run", None, resume=False, restart=True) == 0


async def test_nothing_to_resume_and_data_that_have_changed_are_refused_in_a_sentence(tmp_path: Path, options: BacktestRequest) -> None:
    with pytest.raises(RunFolderError, match="holds no run to resume"):
        await begin(options, tmp_path / "run", None, resume=True, restart=False)
    plan = await prepare(options)
    with RunFolder(tmp_path / "run", Checkpoint(plan.options, plan.fingerprint)) as folder:
        folder.save()
    _change(options)
    with pytest.raises(RunFolderError, match="have changed since the run"):
        await begin(options, tmp_path / "run", None, resume=True, restart=False)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": ("nowhere.csv",)}, "nowhere.csv: there is no such file"),
        ({"intervals": "7m"}, "the first must be an interval of the data: 1m"),
        ({"intervals": "1m,90s"}, r"market.aggregate: 90s bars cannot be built from 1m bars"),
        ({"assignments": ("window=3",)}, r"--set 'window=3': expected section.key=value"),
        ({"until_ms": 1}, "no bar lies between --since and --until"),
        ({"since_ms": 4_000_000_000_000}, r"--since 2096-10-02 07:06: --data .* covers .* to .*; choose a time before its end"),
        ({"vision": "nowhere.gz"}, "cannot be read as recorded vision features"),
        ({"price_increment": "cents"}, "--price-increment"),
    ],
)
async def test_what_cannot_be_played_is_told_with_its_value(options: BacktestRequest, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        await prepare(dataclasses.replace(options, **changes))  # type: ignore[arg-type]
