"""`aquiline market`: teaches, and refuses with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.market import app


def test_help_shows_whole_commands_to_copy() -> None:
    result = CliRunner().invoke(app, ["publish", "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "aquiline market publish AAPL.csv --symbol AAPL.XNAS" in result.output


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--speed", "2", "--bars-per-second", "3"], 2, "--bars-per-second and --speed are two paces; give one"),
        (["--bus", "memory://"], 2, "nobody would read what is published"),
        (["--bus", "kafka://127.0.0.1:1"], 1, "a.csv: no column has a symbol; set --symbol"),
        (["--bus", "kafka://127.0.0.1:1", "--calendar", "NOPE"], 1, "calendar 'NOPE' is none of"),
        (
            ["--bus", "kafka://127.0.0.1:1", "--symbol", "A.X1", "--interval", "1m", "--price-increment", "a cent"],
            2,
            "--price-increment of A.X1: 'a cent' is not a decimal number",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path: Path, options: list[str], code: int, said: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text("time,open,high,low,close\n1720009800,1,1,1,1\n")
    result = CliRunner().invoke(app, ["publish", str(file), *options], env={"COLUMNS": "400"})
    assert result.exit_code == code
    assert said in " ".join(result.output.split())
