"""The example notebook runs from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[3] / "examples" / "notebook" / "decisions.ipynb"


def test_every_cell_of_the_notebook_runs_and_shows_what_it_says() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    shown = [
        "".join(str(output.get("text") or output.get("data", {}).get("text/plain", "")) for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    assert " of 1d of AAPL.XNAS, FB.XNAS" in shown[0]
    assert " drop_60=" in next(text for text in shown if "Facts: " in text)
    assert "published" in next(text for text in shown if "conviction" in text)
    assert "target" in shown[-1] or "horizon" in shown[-1] or "stop" in shown[-1]
