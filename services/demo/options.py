"""The options of `aquiline demo`, each declared once: its default, its limits and its help. Nothing here imports a service."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from typer import Option

_DAY: Final = ["%Y-%m-%d"]
_HISTORY_FROM: Final = dt.datetime(2009, 1, 1)  # noqa: DTZ001 - a day


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One field an option."""

    symbols: Annotated[str, Option(help="Comma-separated stocks of AAPL, FB, GOOG, IBM, MSFT.")] = "AAPL,FB,GOOG,IBM,MSFT"
    # Of two symbols, so 24 decisions: two quiet cores take some three seconds for each.
    model_bars: Annotated[int, Option(min=0, help="Bars a symbol in the act of the real model; 0 leaves the act out.")] = 12
    bars: Annotated[int, Option(min=1, help="Bars a symbol in the paced phase.")] = 36
    pace: Annotated[float, Option(min=0.01, help="Bars a second a symbol.")] = 1.5
    start: Annotated[
        dt.datetime | None,
        Option(formats=_DAY, metavar="DATE", help="First day of the paced phase; by default the run ends with the data."),
    ] = None
    history_from: Annotated[
        dt.datetime,
        Option(
            formats=_DAY,
            metavar="DATE",
            show_default=f"{_HISTORY_FROM:%Y-%m-%d}",
            help="First day of the history that is loaded before the start; the data begin in March 2000.",
        ),
    ] = _HISTORY_FROM
    burst: Annotated[bool, Option(help="Play ten seconds at ten times the pace.")] = True
    outage: Annotated[bool, Option(help="Stop the engine for three seconds, then show the recovery.")] = True
    vision: Annotated[
        Literal["recorded", "live", "late", "none"],
        Option(help="Vision features: as recorded, `live` from the chart model, `late` (after the wait), or none."),
    ] = "recorded"
    intervals: Annotated[
        str, Option(help="Intervals in the prompt, fastest first; the first is 1d, the slower ones are built from it.")
    ] = "1d,1w"
    window: Annotated[int, Option(min=2, help="Bars in a prompt at the start of an epoch.")] = 256
    epoch: Annotated[int, Option(min=1, help="Bars from one epoch to the next; fewer than --window.")] = 64
    permits: Annotated[int, Option(min=1, help="Calls to the engine at once.")] = 5
    min_gap_bars: Annotated[int, Option(min=1, help="Trigger on every n-th bar at most, in event time: a weekend counts as two bars.")] = 1
    bus: Annotated[str, Option(metavar="URL", help="`kafka://host:port`, or `memory://` inside this process.")] = "memory://"
    redis: Annotated[str, Option(metavar="URL", help="`redis://host:port/db`, `memory://` inside this process, or `none://`.")] = (
        "memory://"
    )
    engine: Annotated[str | None, Option(metavar="URL", help="A running engine, `http://host:port`; there is no outage then.")] = None
    time_scale: Annotated[
        float, Option(min=0, help="Speed of the simulator: 2 takes twice as long as the measured GPU, 0 answers at once.")
    ] = 1.0
    assignments: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="Any setting, such as `fusion.trigger_on_vision=true`; repeatable."),
    ] = None
    seed: Annotated[int, Option(help="Seed of the simulator and of the charts' delays.")] = 0
    strategy: Annotated[
        str | None,
        Option(metavar="FOLDER", help="Decide by this strategy, which `aquiline strategy new` makes, and publish its features."),
    ] = None
    console: Annotated[bool, Option(help="Serve the console, the live page, on what is played.")] = True
    verbose: Annotated[bool, Option("--verbose", help="Write log lines from `info` on instead of errors only.")] = False
