"""The report's pictures as inline SVG, each in a wide and a narrow form, in colours that the page's style sheet sets.

Colours are placeholders that become CSS variables, so that one picture is readable on a light and on a dark page, and on paper.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from services.scoring.report.model import Curve, Estimate, Random, ReliabilityBin, Report, Row
from services.scoring.report.optional_packages import need

INK: Final = "#010101"
FAINT: Final = "#020202"
STRATEGY: Final = "#030303"
OTHER: Final = "#040404"
FALL: Final = "#050505"
_VARIABLES: Final = {INK: "--ink", FAINT: "--faint", STRATEGY: "--strategy", OTHER: "--other", FALL: "--fall"}

_LIGHT: Final = {"--ink": "#1b1f24", "--faint": "#b8c0c8", "--strategy": "#0b62c4", "--other": "#b35c00", "--fall": "#b42318"}
"""The light colours of `page.html.j2`, for a picture outside a page."""
_POINTS: Final = 1_200
"""Of a curve at most: a picture is a few hundred pixels wide."""
_STYLE: Final = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: what it shows in words, and its two forms."""

    name: str
    title: str
    alt: str
    wide: str
    narrow: str


@dataclass(frozen=True, slots=True)
class Form:
    """A size that pictures are drawn in."""

    name: str
    width: float
    """Inches of 72 units; the page shows them at most as wide."""
    height: float
    ticks: int


_WIDE: Final = Form("wide", 10.0, 4.2, 8)
_NARROW: Final = Form("narrow", 4.9, 4.2, 4)
Draw = Callable[[Any, Form], None]


def pictures(report: Report) -> dict[str, Picture]:
    """Return the report's pictures by name, those for which there is anything to show; raise ServiceError without matplotlib."""
    drawn: dict[str, Picture] = {}

    def add(name: str, title: str, alt: str, draw: Draw) -> None:
        drawn[name] = Picture(name, title, alt, _svg(name, _WIDE, draw), _svg(name, _NARROW, draw))

    if report.counts.opened:
        add(
            "over-time",
            "Equity over time, and drawdown",
            _alt_over_time(report),
            lambda figure, form: _over_time(figure, form, report),
        )
        add(
            "per-position",
            "Sum of net returns, position by position",
            f"A line over {report.counts.opened:,} positions that ends at {report.per_position.final * 100:+.2f} % of one position.",
            lambda figure, form: _per_position(figure, form, report.per_position),
        )
        add(
            "calibration",
            "Conviction against what came of it",
            "Hit rate and mean net return for each bucket of conviction, with 95 % intervals; the table below has the numbers.",
            lambda figure, form: _calibration(figure, form, report),
        )
    if report.probabilities is not None:
        bins = report.probabilities.bins
        add(
            "reliability",
            "What was said against what happened",
            "The share of positions that gained for each tenth of probability, beside a diagonal; the table has the numbers.",
            lambda figure, form: reliability(figure, form, {"": bins}),
        )
    if report.random is not None:
        random = report.random
        add(
            "random",
            "The strategy among random traders",
            "A histogram of the mean net return of random traders with a line where the strategy lies: "
            f"better than {random.kinds[0].better_than * 100:.0f} % of them.",
            lambda figure, form: _random(figure, form, random),
        )
    return drawn


def standalone(name: str, draw: Draw) -> str:
    """Return a wide picture as a file of its own, in the colours of a light page; raise ServiceError without matplotlib."""
    style = "; ".join(f"{variable}: {colour}" for variable, colour in _LIGHT.items())
    own = f'<svg xmlns="http://www.w3.org/2000/svg" style="{style}; background: #ffffff; font-family: sans-serif" '
    return _svg(name, _WIDE, draw).replace("<svg ", own, 1)


def _svg(name: str, form: Form, draw: Draw) -> str:
    matplotlib = need("matplotlib")
    figures, backend = need("matplotlib.figure"), need("matplotlib.backends.backend_svg")
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = figures.Figure(figsize=(form.width, form.height), layout="constrained")
        backend.FigureCanvasSVG(figure)
        draw(figure, form)
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(written.getvalue(), f"{name}-{form.name}-")


def _inline(svg: str, prefix: str) -> str:
    """Return the SVG fit to stand inside a page: no prologue, ids of its own, colours by variable, no style for its neighbours."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{prefix}', body)
    body = body.replace("url(#", f"url(#{prefix}").replace('href="#', f'href="#{prefix}')
    # The page's own font: matplotlib's measures leave room for it.
    body = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    body = re.sub(r"(\d+\.\d\d)\d+", r"\1", body)  # hundredths of a pixel
    return re.sub(
        r"<svg [^>]*?viewBox=\"([^\"]*)\"[^>]*>",
        r'<svg viewBox="\1" xmlns:xlink="http://www.w3.org/1999/xlink" aria-hidden="true" focusable="false" stroke-linejoin="round">',
        body,
        count=1,
    )


def _lines(report: Report) -> list[tuple[str, Curve, str, float]]:
    """Return the curves of the capital with their names, colours and widths, the strategy's last and on top."""
    lines = [("each signal on its own", report.over_time, INK, 0.7)]
    if report.hold is not None:
        lines.append(("buy and hold", report.hold.curve, OTHER, 1.2))
    if report.net is not None:
        lines.append(("one position a symbol", report.net.curve, STRATEGY, 1.8))
    return lines


def _alt_over_time(report: Report) -> str:
    ends = (
        f"{name}: {of.final * 100:+.2f} % of the capital at the end, largest drawdown {of.worst * 100:.2f} %"
        for name, of, *_ in _lines(report)
    )
    return f"Lines over time. {'; '.join(ends)}."


def _over_time(figure: Any, form: Form, report: Report) -> None:
    dates = need("matplotlib.dates")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.2])
    lines = _lines(report)
    for name, of, colour, width in lines:
        at, values = _thinned(of.at, of.values)
        above.plot(_moments(at), values * 100, color=colour, linewidth=width, label=name)
    for _, of, colour, _ in lines[1:-1]:
        at, values = _thinned(of.at, of.drawdown)
        below.plot(_moments(at), values * 100, color=colour, linewidth=0.9)
    at, values = _thinned(lines[-1][1].at, lines[-1][1].drawdown)
    below.fill_between(_moments(at), values * 100, 0, color=FALL, alpha=0.35, linewidth=0)
    below.plot(_moments(at), values * 100, color=FALL, linewidth=0.9)
    above.axhline(0, color=FAINT, linewidth=0.8)
    above.set_ylabel("% of capital")
    below.set_ylabel("drawdown %")
    low, high = above.get_ylim()
    above.set_ylim(low, high + (high - low) * (0.16 if form is _WIDE else 0.34))  # room for the legend
    above.legend(loc="upper left", ncols=3 if form is _WIDE else 1, fontsize=10)
    locator = dates.AutoDateLocator(minticks=2, maxticks=form.ticks)
    below.xaxis.set_major_locator(locator)
    below.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))


def _per_position(figure: Any, form: Form, curve: Curve) -> None:
    del form
    ticker = need("matplotlib.ticker")
    axes = figure.subplots()
    at, values = _thinned(curve.at, curve.values)
    axes.plot(at, values * 100, color=STRATEGY, linewidth=1.6, drawstyle="steps-post")
    axes.axhline(0, color=FAINT, linewidth=0.8)
    axes.set_xlabel("positions, in order of exit")
    axes.set_ylabel("% of one position")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=6))


def _calibration(figure: Any, form: Form, report: Report) -> None:
    panels = figure.subplots(1, 2) if form is _WIDE else figure.subplots(2, 1, sharex=True)
    buckets = report.calibration.buckets
    shown: tuple[tuple[str, Estimate | None, Callable[[Row], Estimate | None]], ...] = (
        ("hit rate %", report.hit_rate, lambda row: row.hit_rate),
        ("mean net return %", report.money.expectancy, lambda row: row.mean_return),
    )
    for axes, (label, of_all, figure_of) in zip(panels, shown, strict=True):
        axes.set_ylabel(label)
        axes.set_xticks(range(len(buckets)), [row.name.replace(" to ", "-") for row in buckets])
        axes.set_xlim(-0.5, len(buckets) - 0.5)
        if of_all is not None:
            axes.axhline(of_all.value * 100, color=OTHER, linewidth=1.0)
        for place, row in enumerate(buckets):
            if (estimate := figure_of(row)) is None:
                continue
            if estimate.low is not None and estimate.high is not None:
                axes.vlines(place, estimate.low * 100, estimate.high * 100, color=STRATEGY, linewidth=2.2, alpha=0.6)
            axes.plot([place], [estimate.value * 100], marker="o", markersize=6, color=STRATEGY)
    panels[-1].set_xlabel("conviction")
    panels[0].set_xlabel("conviction" if form is _WIDE else "")


def reliability(figure: Any, form: Form, series: Mapping[str, Sequence[ReliabilityBin]]) -> None:
    """Draw bins against the diagonal, with Wilson's intervals and counts; the last of several series in the strategy's colour."""
    del form
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1.0)
    for number, (name, bins) in enumerate(series.items()):
        colour = STRATEGY if number == len(series) - 1 else OTHER
        at, gained = [one.forecast * 100 for one in bins], [one.gained.value * 100 for one in bins]
        ends = [((one.gained.low or 0.0) * 100, (1.0 if one.gained.high is None else one.gained.high) * 100) for one in bins]
        axes.vlines(at, [low for low, _ in ends], [high for _, high in ends], color=colour, linewidth=2.0, alpha=0.5)
        axes.plot(at, gained, marker="o", markersize=6, linewidth=1.2, color=colour, label=name or None)
        for one in bins:
            axes.annotate(f"{one.count:,}", (one.forecast * 100, one.gained.value * 100), (7, 4), textcoords="offset points", color=colour)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("said, %")
    axes.set_ylabel("gained, %")
    if len(series) > 1:
        axes.legend(loc="upper left", fontsize=10)


def _random(figure: Any, form: Form, random: Random) -> None:
    axes = figure.subplots()
    every = [mean for kind in random.kinds for mean in kind.means]
    edges = np.linspace(min(every), max(every) + 1e-9, 51) * 100
    for kind, colour, style in zip(random.kinds, (OTHER, INK), ("stepfilled", "step"), strict=True):
        values = np.array(kind.means) * 100
        share = np.full(len(values), 100 / len(values))
        axes.hist(
            values, bins=edges, weights=share, histtype=style, color=colour, alpha=0.55 if style == "stepfilled" else 0.8, label=kind.name
        )
    axes.axvline(random.strategy * 100, ymax=0.8 if form is _WIDE else 0.7, color=STRATEGY, linewidth=2.4, label="the strategy")
    axes.set_xlabel("mean net return of a position, %")
    axes.set_ylabel("% of random traders")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (1.22 if form is _WIDE else 1.42))  # room for the legend
    axes.legend(loc="upper left", ncols=3 if form is _WIDE else 1, fontsize=10)


def _moments(at: Any) -> Any:
    return at.astype("datetime64[ms]")


def _thinned(at: Sequence[int], values: Sequence[float]) -> tuple[Any, Any]:
    """Return the curve with at most about `_POINTS` points, the least and the greatest of each stretch among them."""
    every_at, every = np.array(at, dtype=np.int64), np.array(values, dtype=np.float64)
    if len(every) <= _POINTS:
        return every_at, every
    kept = {0, len(every) - 1}
    for stretch in np.array_split(np.arange(len(every)), _POINTS // 2):
        kept |= {int(stretch[every[stretch].argmin()]), int(stretch[every[stretch].argmax()])}
    order = np.array(sorted(kept))
    return every_at[order], every[order]
