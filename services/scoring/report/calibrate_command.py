"""Runs `aquiline calibrate signals`: reads outcomes, fits a temperature, prints the reliability before and after, and draws it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from schemas import SignalOutcome
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.errors import ServiceError
from services.core.settings import Settings, SettingsError, load
from services.scoring.report import number_format
from services.scoring.report.charts import reliability, standalone
from services.scoring.report.input_selection import OutcomeFilter
from services.scoring.report.inputs_from_files import Files, read_files
from services.scoring.report.inputs_from_topics import read_outcomes
from services.scoring.report.model import ReliabilityBin
from services.scoring.report.optional_packages import need
from services.scoring.report.temperature import TemperatureFit, fit_temperature
from services.scoring.report.trades import distinct

_BAR = 20
"""Letters that stand for 100 %."""


@dataclass(frozen=True, slots=True)
class CalibrateRequest:
    """The options of the command."""

    outcomes: Path | None
    since_ms: int | None
    until_ms: int | None
    plot: Path | None
    bus: str | None
    config: Path | None


async def run(asked: CalibrateRequest) -> None:
    """Fit, print and draw; raise SettingsError, BusError, ServiceError."""
    settings = load(asked.config, {} if asked.bus is None else {"bus": {"url": asked.bus}})
    if asked.plot is not None:
        _check(asked.plot)
    wanted = OutcomeFilter(asked.since_ms, asked.until_ms, frozenset())
    with Progress(console=Console(stderr=True), transient=True) as progress:
        if asked.outcomes is not None:
            read = read_files(Files(asked.outcomes, (), None, None), wanted, progress).outcomes
        else:
            read = await _from_topic(settings, wanted, progress)
    found = fit_temperature(distinct(read)[0])
    show(found, settings.fusion.flash_temperature, Console())
    if asked.plot is not None:
        series = {"before": found.before.bins, f"at {found.temperature:.2f} times the temperature": found.after.bins}
        drawn = standalone("reliability", lambda figure, form: reliability(figure, form, series))
        try:
            asked.plot.write_text(drawn, encoding="utf-8")
        except OSError as error:
            raise ServiceError(f"--plot {str(asked.plot)!r} cannot be written: {error.strerror}") from error


def show(found: TemperatureFit, now: float, console: Console) -> None:
    """Print the fit; `now` is the present setting `fusion.flash_temperature`."""
    console.print(
        f"Fitted on {number_format.counted(found.fitted, 'position')}, shown on the {found.shown:,} that came after. "
        "The event is a gain after costs; what is said is the probability of the signal's action.",
        highlight=False,
    )
    scores = Table("", "log loss", "Brier score", title="The lower, the better", title_justify="left")
    for name, one in (("as it is", found.before), (f"{found.temperature:.3f} times the temperature", found.after)):
        scores.add_row(name, f"{one.log_loss:.4f}", f"{one.brier:.4f}")
    console.print(scores)
    for name, one in (("As it is", found.before), ("After", found.after)):
        console.print(_reliability(name, one.bins))
    if not found.better:
        console.print("The later positions are not better with it: keep the temperature.", highlight=False)
    else:
        console.print(f"Set fusion.flash_temperature = {now * found.temperature:.3f} (it is {now:g}).", highlight=False)


def _reliability(title: str, bins: tuple[ReliabilityBin, ...]) -> Table:
    table = Table("said", "positions", "said on average", "gained (95 %)", "said (|) and gained (#)", title=title, title_justify="left")
    for one in bins:
        bar = list("#" * round(one.gained.value * _BAR) + "." * (_BAR - round(one.gained.value * _BAR)))
        bar[min(_BAR - 1, round(one.forecast * _BAR))] = "|"
        gained = number_format.hit_rate(one.gained, one.count)
        table.add_row(one.name, f"{one.count:,}", number_format.share(one.forecast, 1), gained, "".join(bar))
    return table


async def _from_topic(settings: Settings, wanted: OutcomeFilter, progress: Progress) -> list[SignalOutcome]:
    if settings.bus.url.startswith("memory:"):
        raise SettingsError("bus.url is memory://, which no other process can read; name a kafka:// bus, or --outcomes")
    bus = connect(settings.bus, SystemClock(), settings.topics)
    try:
        return await read_outcomes(bus, settings, wanted, progress)
    finally:
        await bus.close()


def _check(plot: Path) -> None:
    """Raise before anything is read when the picture cannot be drawn or written."""
    need("matplotlib")
    if plot.suffix != ".svg":
        raise SettingsError(f"--plot {str(plot)!r}: the picture is an SVG; name a file that ends in .svg")
    if plot.is_dir() or not plot.absolute().parent.is_dir():
        raise SettingsError(f"--plot {str(plot)!r} cannot be written: name a file in an existing folder")
