"""The sweep's table for people, and its plot where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from services.inference.launcher import presets
from services.inference.tuner.grid import label
from services.inference.tuner.sweep import Row


def finish(rows: Sequence[Row], folder: Path) -> str:
    """Print the table, write plot and best preset to `folder`, and return what to do next; raise ValueError when nothing was measured."""
    console = Console()
    console.print(table(rows))
    if not plot(rows, folder / "tuned.png"):
        Console(stderr=True).print("no plot: matplotlib is not installed")
    if not rows or rows[0].score is None:
        raise ValueError("no combination could be measured; what each said stands above")
    preset = folder / "tuned.toml"
    presets.write(rows[0].preset, preset)
    return f"best: {label(rows[0].preset)}, written to {preset}: aquiline engine serve --preset {preset}"


def table(rows: Sequence[Row]) -> Table:
    """Return one line for each combination and cell, the best combination first."""
    made = Table(title="steps/top-k/draft tokens; medians")
    made.add_column("combination")
    for column in ("tokens", "at once", "first ms", "answer ms", "p95 ms", "tokens/s", "accepted", "ms a step", "cached"):
        made.add_column(column, justify="right")
    for row in rows:
        if row.failure:
            made.add_row(label(row.preset), f"failed: {row.failure[:120]}")
        for number, cell in enumerate(row.cells):
            made.add_row(
                label(row.preset) if number == 0 else "",
                f"{cell.length:,}",
                str(cell.at_once),
                f"{cell.first_ms:.0f}",
                f"{cell.total_ms:.0f}",
                f"{cell.total_p95_ms:.0f}",
                _number(cell.tokens_per_s, 0),
                _number(cell.accept_length, 2),
                _number(cell.step_ms, 2),
                _number(cell.cached_share, 3),
                end_section=number == len(row.cells) - 1,
            )
    return made


def plot(rows: Sequence[Row], file: Path) -> bool:
    """Draw answer time by context length, a panel for each concurrency; False when matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional
    except ImportError:
        return False
    good = [row for row in rows if row.cells and not row.failure]
    counts = sorted({cell.at_once for row in good for cell in row.cells})
    figure = Figure(figsize=(4.5 * max(len(counts), 1), 4), layout="constrained")
    for number, count in enumerate(counts, 1):
        axes = figure.add_subplot(1, len(counts), number)
        for row in good:
            cells = sorted((cell for cell in row.cells if cell.at_once == count), key=lambda cell: cell.length)
            axes.plot([cell.length for cell in cells], [cell.total_ms for cell in cells], marker="o", label=label(row.preset))
        axes.set(title=f"{count} at once", xlabel="context, tokens", ylabel="answer, ms" if number == 1 else "", ylim=(0, None))
        axes.grid(alpha=0.3)
    if good:
        figure.axes[0].legend(fontsize="small")
    figure.savefig(file, dpi=150)
    return True


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
