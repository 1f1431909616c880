"""The judge of one symbol: signals, cancels, splits and closed bars in, one outcome a signal out, whatever the order they come in.

Pure: no clock, no I/O. Its state is plain data, bounded by the bars kept and the signals open. `docs/scoring.md` has the rules.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

import numpy as np

from schemas import Action, Cancel, CancelReason, ExitReason, MarketFeatures, Order, Restatement, RunMode, Signal, SignalOutcome
from services.core.calendar import SessionCalendar
from services.core.restatement import jumps
from services.scoring.fill_rules import FillRules
from services.scoring.paper_position import Bar, Key, PaperPosition, PositionEnd, missing_fields
from services.scoring.probability_scores import probability_of, score
from services.scoring.restatements import Restatements
from services.scoring.signal_times import span_of

KEPT_BARS: Final = 128
"""Bars of each interval kept for signals that are read after them; one that stands before them can no longer be judged."""
_KEPT_CANCELS: Final = 256
"""Cancels kept for signals that are not there yet."""
_SCORE_DIGITS: Final = 8
COMPLETED: Final = frozenset({ExitReason.TARGET, ExitReason.STOP, ExitReason.HORIZON})
"""The ends that a position comes to by itself. A cancel or a newer signal ends it from outside."""
_STANDING: Final = frozenset({Action.BUY, Action.SELL, Action.EXIT})


@dataclasses.dataclass(slots=True)
class _Series:
    """The last bars of one interval, and the signals that act within them."""

    bars: list[Bar] = dataclasses.field(default_factory=list)
    trimmed_ms: int = 0
    """Close of the newest evicted bar: a signal that acts before it is too late to be judged."""
    seen: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    """By signal: its mode, key, `from_ms` and action. All of those that stand, open or not."""

    def append(self, bar: Bar) -> None:
        """Append the next bar, and evict the oldest one beyond `KEPT_BARS` with the signals before it."""
        self.bars.append(bar)
        if len(self.bars) > KEPT_BARS:
            self.trimmed_ms = self.bars.pop(0).ts_close_ms
            if any(entry[2] < self.trimmed_ms for entry in self.seen.values()):
                self.seen = {name: entry for name, entry in self.seen.items() if entry[2] >= self.trimmed_ms}


class Judge:
    """Judges the signals of one symbol."""

    def __init__(self, rules: FillRules, calendar: SessionCalendar) -> None:
        """Fill orders by `rules`; `calendar` is the instrument's."""
        self._rules = rules
        self._calendar = calendar
        self._series: dict[str, _Series] = {}
        self._open: dict[str, PaperPosition] = {}
        self._cancels: dict[str, int] = {}
        """Wall time of each cancel whose signal has not come."""
        self._restatements = Restatements()

    @property
    def open_signals(self) -> int:
        """Return how many signals have no outcome yet."""
        return len(self._open)

    def is_too_late(self, signal: Signal) -> bool:
        """Return whether the bars that `signal` is to be judged by are evicted: it gets no outcome, or has one already."""
        series = self._series.get(signal.interval)
        known = str(signal.signal_id) in self._open
        return series is not None and not known and span_of(signal, self._calendar).from_ms < series.trimmed_ms

    def signal(self, signal: Signal) -> list[SignalOutcome]:
        """Take a signal, and return the outcomes that it brings about: its own when its bars are there already, and of those it ends.

        One seen before changes nothing, nor do `hold`, `abstain` and a signal that comes too late. Raises ValueError when it
        lacks what it is judged by.
        """
        if signal.action not in _STANDING:
            return []
        if signal.action is not Action.EXIT and (missing := missing_fields(signal)):
            raise ValueError(f"a signal to {signal.action.value} needs {', '.join(missing)} to be judged")
        name, series = str(signal.signal_id), self._series.setdefault(signal.interval, _Series())
        span = span_of(signal, self._calendar)
        if name in self._open or name in series.seen or span.from_ms < series.trimmed_ms:
            return []
        vision = -1 if signal.as_of.vision is None else signal.as_of.vision.offset
        key: Key = (span.stands_ms, signal.as_of.market.offset, vision, signal.ts_decided_ms, name)
        lane = [(seen, entry) for seen, entry in series.seen.items() if entry[0] == signal.mode]
        series.seen[name] = [signal.mode, list(key), span.from_ms, signal.action.value]
        touched = [
            paper
            for paper in self._open.values()
            if (paper.interval, paper.mode) == (signal.interval, signal.mode)
            and paper.key < key
            and _supersede(paper, span.from_ms, signal.action.value)
        ]
        if signal.action is not Action.EXIT:
            paper = self._open[name] = PaperPosition.of(signal, span, key, self._rules)
            for _, (_, later, from_ms, action) in lane:
                if tuple(later) > key:
                    _supersede(paper, from_ms, action)
            cancelled_ms = self._cancels.pop(name, None)
            paper.cancelled_ms = None if cancelled_ms is None else cancelled_ms + paper.clock_ms
            touched.append(paper)
        return self._replay(touched)

    def cancel(self, cancel: Cancel) -> list[SignalOutcome]:
        """Take a cancel, also one that comes before its signal; return the outcomes that it brings about.

        One of reason `superseded` says nothing new: the newer signal is in the log, and says from which bar on it stands.
        """
        if cancel.reason is CancelReason.SUPERSEDED:
            return []
        name, at_ms = str(cancel.signal_id), cancel.ts_decided_ms
        paper = self._open.get(name)
        if paper is not None:
            event_ms = at_ms + paper.clock_ms
            if paper.cancelled_ms is not None and paper.cancelled_ms <= event_ms:
                return []
            paper.cancelled_ms = event_ms
            return self._replay([paper])
        if not any(name in series.seen for series in self._series.values()):
            self._cancels[name] = min(at_ms, self._cancels.get(name, at_ms))
            if len(self._cancels) > _KEPT_CANCELS:
                del self._cancels[min(self._cancels, key=lambda other: (self._cancels[other], other))]
        return []

    def bar(self, bar: MarketFeatures) -> list[SignalOutcome]:
        """Take a closed bar and return the outcomes that it brings about; one that forms, was seen or comes out of order changes nothing.

        A correction (higher `revision`) of a bar that is kept has the open signals which it concerns played anew.
        """
        if not bar.closed:
            return []
        new = Bar(bar.ts_open_ms, bar.ts_close_ms, bar.open, bar.high, bar.low, bar.close, bar.revision)
        series = self._series.setdefault(bar.interval, _Series())
        papers = [paper for paper in self._open.values() if paper.interval == bar.interval]
        if not series.bars or new.ts_open_ms >= series.bars[-1].ts_close_ms:
            series.append(new)
            return self._play(papers, series, len(series.bars) - 1)
        index = bisect_left(series.bars, new.ts_close_ms, key=lambda kept: kept.ts_close_ms)
        if index == len(series.bars) or series.bars[index].ts_close_ms != new.ts_close_ms:
            return []
        if new.revision <= series.bars[index].revision:
            return []
        series.bars[index] = new
        return self._replay([paper for paper in papers if paper.from_ms < new.ts_close_ms])

    def restatement(self, event: Restatement) -> list[SignalOutcome]:
        """Take a split or dividend that the symbol's prices have to be restated for; return the outcomes that it brings about.

        Bars that open at `effective_ms` or later are on another scale than signals that stand before a split. Signals that stand before a
        dividend are judged as if the price had not gone ex: a position is paid what it holds, and stops and targets move with the price.
        """
        if not self._restatements.add(event):
            return []
        return self._replay([paper for paper in self._open.values() if paper.key[0] <= event.effective_ms])

    def dump(self) -> dict[str, Any]:
        """Return the whole state as plain data that JSON can hold."""
        return {
            "series": {
                interval: {"bars": [list(bar) for bar in one.bars], "trimmed_ms": one.trimmed_ms, "heard": dict(one.seen)}
                for interval, one in self._series.items()
            },
            "open": [{name: getattr(paper, name) for name in PaperPosition.__slots__} for paper in self._open.values()],
            "cancels": dict(self._cancels),
            "splits": [list(split) for split in self._restatements.splits],
            "dividends": [list(dividend) for dividend in self._restatements.dividends],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Become what `dump` returned."""
        self._series = {
            interval: _Series([Bar(*bar) for bar in one["bars"]], one["trimmed_ms"], dict(one["heard"]))
            for interval, one in state["series"].items()
        }
        papers = [PaperPosition(**{**_before_fill_rules(paper), "key": tuple(paper["key"])}) for paper in state["open"]]
        self._open = {paper.signal_id: paper for paper in papers}
        self._cancels = dict(state["cancels"])
        self._restatements = Restatements()
        self._restatements.splits = [(effective_ms, ratio) for effective_ms, ratio in state["splits"]]
        self._restatements.dividends = [(effective_ms, amount) for effective_ms, amount in state.get("dividends", ())]

    def _replay(self, papers: list[PaperPosition]) -> list[SignalOutcome]:
        """Play positions again from their beginning where the bars kept reach back to it; older ones keep what was played."""
        outcomes = []
        for paper in papers:
            series = self._series.get(paper.interval, _Series())
            if paper.from_ms >= series.trimmed_ms:
                paper.reset()
                first = bisect_left(series.bars, paper.from_ms, key=lambda bar: bar.ts_open_ms)
                outcomes += self._play([paper], series, first)
        return outcomes

    def _play(self, papers: Iterable[PaperPosition], series: _Series, first: int) -> list[SignalOutcome]:
        """Play the bars of `series` from the index `first` on."""
        outcomes = []
        for paper in sorted(papers, key=lambda one: one.key):
            for index in range(first, len(series.bars)):
                scaled = self._restatements.scaled(series.bars[index], paper.key[0])
                ended = paper.play(scaled, self._rules, jumped=self._jumped(series, index))
                if ended is not None:
                    del self._open[paper.signal_id]
                    outcomes.append(_outcome(paper, ended))
                    break
        return outcomes

    def _jumped(self, series: _Series, index: int) -> bool:
        """Return whether the close of that bar is suspected to follow a split that nobody published."""
        if not index:
            return False
        before = series.bars[index - 1]
        # A split that takes effect as the bar before opens is in its prices already.
        after = self._restatements.scaled(series.bars[index], before.ts_open_ms + 1)
        return len(jumps(np.array([before.close, after.close]), self._rules.max_jump)) > 0


def _before_fill_rules(paper: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a paper position with what states of earlier versions lack."""
    return {"entry_fill": paper["entry"], "target_fill": paper["target"], "order": None, **paper}


def _supersede(paper: PaperPosition, from_ms: int, action: str) -> bool:
    """Note that a newer signal of the lane stands from then on; return whether that may change how `paper` ends."""
    changed = False
    if paper.replaced_ms is None or from_ms < paper.replaced_ms:
        paper.replaced_ms, changed = from_ms, True
    if action != paper.action and (paper.turned_ms is None or from_ms < paper.turned_ms):
        paper.turned_ms, changed = from_ms, True
    return changed


def _outcome(paper: PaperPosition, ended: PositionEnd) -> SignalOutcome:
    scores = None
    if paper.probabilities is not None and ended.return_net is not None and ended.reason in COMPLETED:
        scores = score(probability_of(Action(paper.action), paper.probabilities), gained=ended.return_net > 0)
    return SignalOutcome(
        schema_version=1,
        run_mode=RunMode(paper.run_mode),
        signal_id=UUID(paper.signal_id),
        symbol=paper.symbol,
        interval=paper.interval,
        mode=paper.mode,
        action=Action(paper.action),
        source=paper.source,
        vision=paper.vision,
        conviction=paper.conviction,
        probabilities=paper.probabilities,
        brier=None if scores is None else round(scores.brier, _SCORE_DIGITS),
        log_loss=None if scores is None else round(scores.log_loss, _SCORE_DIGITS),
        exit_reason=ExitReason(ended.reason),
        unfilled_reason="invalid" if ended.invalid else None,
        unscored_reason="suspected_split" if ended.unscored else None,
        ts_entry_ms=paper.opened_ms,
        ts_exit_ms=ended.ts_exit_ms,
        entry=paper.price or None,
        exit=ended.exit,
        return_net=ended.return_net,
        max_favourable=ended.max_favourable,
        max_adverse=ended.max_adverse,
        bars_held=paper.bars_held,
        order=None if paper.order is None else Order(**paper.order),
    )
