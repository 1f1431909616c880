"""Parses the times of a column, numbers and text. The form is decided for the whole column, as single cells can be ambiguous.

A number is an epoch time in the unit that makes it plausible, a date such as `20240102`, or an Excel serial date. Text is ISO 8601 or
another form that platforms and spreadsheets write.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAY_MS: Final = 86_400_000
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_EPOCH_DAY: Final = dt.date(1970, 1, 1).toordinal()
# Seconds from 1971 to 2100. Times a thousand the spans of the units do not touch: each number has at most one unit.
_FIRST_S: Final = 31_536_000
_LAST_S: Final = 4_102_444_800
_UNITS: Final = (0, 3, 6, 9)
"""Seconds, milliseconds, microseconds and nanoseconds, as powers of ten."""
# Days since 1899-12-30, from 1954 to 2119.
_EXCEL: Final = (20_000, 80_000)
_EXCEL_ZERO: Final = dt.date(1899, 12, 30).toordinal()
_FIRST_YEAR: Final = 1900
_LAST_YEAR: Final = 2100
_TWO_DIGITS: Final = 100
_MONTHS_OF_YEAR: Final = 12
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# Abbreviations that mean one offset wherever they are written; `EST` is what exports call New York's winter time all year.
_OFFSETS: Final = {"EST": -5, "EDT": -4, "PST": -8, "PDT": -7, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3, "JST": 9, "HKT": 8}

_DATES: Final = (
    r"(?P<year>\d{4})(?P<sep>[-/.])(?P<month>\d{1,2})(?P=sep)(?P<day>\d{1,2})",
    r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})",
    r"(?P<first>\d{1,2})(?P<sep>[-/.])(?P<second>\d{1,2})(?P=sep)(?P<year>\d{4}|\d{2})",
    r"(?P<day>\d{1,2})[- ](?P<name>[A-Za-z]{3,9})\.?[-, ]+(?P<year>\d{4}|\d{2})",
    r"(?P<name>[A-Za-z]{3,9})\.? (?P<day>\d{1,2}),? (?P<year>\d{4})",
)
_CLOCK: Final = (
    r"(?:(?:[Tt]|-|,? +) *(?P<hour>\d{1,2})(?::(?P<minute>\d{2})(?::(?P<second_>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"|(?P<minute_>\d{2})(?P<second__>\d{2})?)(?: *(?P<half>[AaPp])\.?[Mm]\.?)?)?"
)
_ZONE: Final = r"(?: *(?P<zone>[Zz]|(?:GMT|UTC)?[+-]\d{2}:?\d{2}|[+-]\d{2}|[A-Z]{3,4}|[A-Z][A-Za-z]+/[A-Za-z_/+-]+\d*))?"
_FORMS: Final = tuple(re.compile(rf"(?:[A-Za-z]{{3}},? )?{date}{_CLOCK}{_ZONE}") for date in _DATES)
_DAY_OR_MONTH_FIRST: Final = 2
_NUMBER: Final = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")
_TIME_OF_DAY: Final = re.compile(r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?.*")

_Parse = Callable[[str], "ParsedTime"]


@dataclass(frozen=True, slots=True)
class ParsedTime:
    """A parsed time: an instant, a naive local time, or a date."""

    wall_ms: int
    """The local date and time as written, as if it were UTC, in milliseconds since 1970."""
    offset_ms: int | None
    """The UTC offset; None for naive times."""
    date_only: bool = False

    @property
    def date(self) -> dt.date:
        """Return the date as written."""
        return dt.date.fromordinal(_EPOCH_DAY + self.wall_ms // DAY_MS)

    @property
    def at_midnight(self) -> bool:
        """Return whether the time as written is 00:00."""
        return self.wall_ms % DAY_MS == 0

    def instant_ms(self, zone: dt.tzinfo, after_ms: int | None = None) -> int:
        """Return milliseconds since 1970, naive times being in `zone`; raise ValueError for a local time that does not exist.

        In the repeated hour when clocks are set back, the second occurrence is taken if the first is not after `after_ms`.
        """
        if self.offset_ms is not None:
            return self.wall_ms - self.offset_ms
        naive = (_EPOCH + dt.timedelta(milliseconds=self.wall_ms)).replace(tzinfo=None)
        first = _ms(naive.replace(tzinfo=zone, fold=0))
        second = _ms(naive.replace(tzinfo=zone, fold=1))
        if second < first:
            raise ValueError(f"does not exist in time zone {zone}: clocks are set forward then")
        return second if after_ms is not None and first <= after_ms else first


def parse_times(cells: Sequence[Any]) -> list[ParsedTime | str]:
    """Return the time in each cell of a column, or a text that says what is wrong with the cell."""
    texts = [cell for cell in cells if isinstance(cell, str)]
    numbers = [cell for cell in cells if isinstance(cell, int | float) and not isinstance(cell, bool)]
    if numbers or any(_NUMBER.fullmatch(text) for text in texts[:1]):
        parse = _number_form([str(cell) for cell in cells])
    else:
        parse = _text_form(texts)
    return [_of(cell, parse) for cell in cells]


def is_time_of_day(cell: Any) -> bool:
    """Return whether a cell is a time without a date, such as `09:30`."""
    return isinstance(cell, dt.time) or (isinstance(cell, str) and bool(_TIME_OF_DAY.fullmatch(cell)))


def with_clock(dates: Sequence[Any], times: Sequence[Any]) -> list[Any]:
    """Join a column of dates and a column of times: `20240102` and `0930`.

    Times without colons are hours and minutes, with seconds where a cell has more than four digits, and milliseconds since
    midnight where one has more than six.
    """
    digits = max((len(str(cell)) for cell in times if str(cell).isdigit()), default=0)
    return [f"{date} {_clock(str(cell).strip(), digits)}" for date, cell in zip(dates, times, strict=True)]


def since_midnight(date: str, times: Sequence[Any]) -> list[str]:
    """Join a date and a column of milliseconds since midnight."""
    return [f"{date} {_of_day(int(str(cell)))}" if str(cell).isdigit() else f"{date} {cell}" for cell in times]


def _of_day(ms: int) -> str:
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1_000 % 60:02d}.{ms % 1_000:03d}"


def _clock(text: str, digits: int) -> str:
    if not text.isdigit():
        return text
    if digits > len("093000"):
        return _of_day(int(text))
    text = text.zfill(4 if digits <= len("0930") else 6)
    return ":".join(text[at : at + 2] for at in range(0, len(text), 2))


def _of(cell: Any, parse: _Parse) -> ParsedTime | str:
    if isinstance(cell, dt.datetime):
        offset = cell.utcoffset()
        wall = cell.replace(tzinfo=dt.UTC)
        return ParsedTime(_ms(wall), None if offset is None else round(offset.total_seconds() * 1_000))
    if isinstance(cell, dt.date):
        return _day(cell.toordinal())
    text = "" if cell is None else str(cell).strip()
    if text in {"", "nan", "NaN", "NaT", "None", "null"}:
        return "is empty; a time is expected"
    try:
        return parse(text)
    except (ValueError, OverflowError) as error:
        return str(error)


def _ms(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // dt.timedelta(milliseconds=1)


def _day(ordinal: int) -> ParsedTime:
    return ParsedTime((ordinal - _EPOCH_DAY) * DAY_MS, None, date_only=True)


def _number_form(cells: Sequence[str]) -> _Parse:
    """Return the parser of a numeric column. All cells must fit a form: a single one may fit by coincidence."""
    held = [cell.strip() for cell in cells if _NUMBER.fullmatch(cell.strip())]
    for length, form in ((8, "%Y%m%d"), (12, "%Y%m%d%H%M"), (14, "%Y%m%d%H%M%S")):
        if all(len(cell.split(".")[0]) == length and _fits(cell.split(".")[0], form) for cell in held):
            return lambda text: _written(text.split(".")[0], form)
    if all(_EXCEL[0] <= float(cell) < _EXCEL[1] for cell in held):
        return _excel
    return _since_1970


def _fits(text: str, form: str) -> bool:
    try:
        return _FIRST_YEAR <= dt.datetime.strptime(text, form).year <= _LAST_YEAR  # noqa: DTZ007 - a clock's time, its zone unknown
    except ValueError:
        return False


def _written(text: str, form: str) -> ParsedTime:
    if not _fits(text, form):
        raise ValueError(f"is not a date of the form {form}")
    moment = dt.datetime.strptime(text, form).replace(tzinfo=dt.UTC)
    return ParsedTime(_ms(moment), None, date_only=form == "%Y%m%d")


def _excel(text: str) -> ParsedTime:
    days = float(text)
    whole = math.floor(days)
    # Excel keeps a time as a fraction of a day, which is good to about a millisecond; seconds are what people type.
    seconds = round((days - whole) * 86_400)
    day = _day(_EXCEL_ZERO + whole)
    return day if seconds == 0 else ParsedTime(day.wall_ms + seconds * 1_000, None)


def _since_1970(text: str) -> ParsedTime:
    if not _NUMBER.fullmatch(text):
        raise ValueError("is not a number, unlike the other times")
    whole = int(text) if text.isdigit() else float(text)
    for digits in _UNITS:
        if _FIRST_S * 10**digits <= whole <= _LAST_S * 10**digits:
            return ParsedTime(int(whole * 1_000) if digits == 0 else int(whole) * 1_000 // 10**digits, 0)
    raise ValueError(
        "is not a plausible time: as seconds, milliseconds, microseconds or nanoseconds since 1970 it is before 1971 or after 2100, "
        "and it is not a date such as 20240102"
    )


def _text_form(texts: Sequence[str]) -> _Parse:
    """Return the parser of a text column: one form, with one order of day and month, for all cells."""
    held = [text for text in texts if text]
    for form in _FORMS:
        matches = [match for text in held if (match := form.fullmatch(text))]
        if matches and (form.fullmatch(held[0]) or len(matches) * 2 > len(held)):
            day_first = _day_first(matches) if form is _FORMS[_DAY_OR_MONTH_FIRST] else False
            return functools.partial(_matched, form, day_first)
    return lambda _: _not_a_time()


def _not_a_time() -> ParsedTime:
    raise ValueError("is not a time; write it as 2024-01-02T09:30:00Z")


def _matched(form: re.Pattern[str], day_first: bool | None, text: str) -> ParsedTime:  # noqa: FBT001 - bound, not called so
    match = form.fullmatch(text)
    if match is None:
        _not_a_time()
        raise AssertionError
    parts = match.groupdict()
    year = int(parts["year"])
    year += 2_000 if year < _TWO_DIGITS and len(parts["year"]) <= 2 else 0  # noqa: PLR2004 - two digits
    if "name" in parts:
        name = parts["name"][:3].lower()
        if name not in _MONTHS:
            raise ValueError("has no English month name")
        month, day = _MONTHS.index(name) + 1, int(parts["day"])
    elif "first" in parts:
        if day_first is None:
            raise ValueError("may have the day or the month first; write dates as 2024-01-31")
        first, second = int(parts["first"]), int(parts["second"])
        day, month = (first, second) if day_first else (second, first)
    else:
        month, day = int(parts["month"]), int(parts["day"])
    ordinal = dt.date(year, month, day).toordinal()
    if parts["hour"] is None and parts["zone"] is None:
        return _day(ordinal)
    wall_ms = _day(ordinal).wall_ms + _clock_ms(parts)
    return ParsedTime(wall_ms, _offset_ms(parts["zone"], wall_ms))


def _clock_ms(parts: dict[str, str | None]) -> int:
    hour = int(parts["hour"] or 0)
    minute = int(parts["minute"] or parts["minute_"] or 0)
    second = int(parts["second_"] or parts["second__"] or 0)
    half = (parts["half"] or "").lower()
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    if hour > 23 or minute > 59 or second > 59:  # noqa: PLR2004 - a clock's
        raise ValueError(f"has an invalid time of day: {hour:02d}:{minute:02d}:{second:02d}")
    return ((hour * 60 + minute) * 60 + second) * 1_000 + int((parts["fraction"] or "0").ljust(3, "0")[:3])


def _offset_ms(zone: str | None, wall_ms: int) -> int | None:
    if zone is None:
        return None
    if zone.upper() in {"Z", "UTC", "GMT"}:
        return 0
    if zone in _OFFSETS:
        return _OFFSETS[zone] * 3_600_000
    if (match := re.fullmatch(r"(?:GMT|UTC)?([+-])(\d{2}):?(\d{2})?", zone)) is not None:
        return (1 if match[1] == "+" else -1) * (int(match[2]) * 60 + int(match[3] or 0)) * 60_000
    return wall_ms - ParsedTime(wall_ms, None).instant_ms(time_zone(zone))


def time_zone(name: str) -> ZoneInfo:
    """Return the time zone of that name; raise ValueError when there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"names time zone {name!r}, which is not known; use one such as America/New_York") from error


def _day_first(matches: Sequence[re.Match[str]]) -> bool | None:
    """Return whether the day comes first in 01/02/2024, None when it is ambiguous."""
    firsts, seconds = [int(match["first"]) for match in matches], [int(match["second"]) for match in matches]
    if matches[0]["sep"] == ".":
        return True
    if max(firsts) > _MONTHS_OF_YEAR or max(seconds) > _MONTHS_OF_YEAR:
        return max(firsts) > _MONTHS_OF_YEAR
    # Take the order under which consecutive rows are closer together: days apart, not months.
    by_day, by_month = _travel(matches, day_first=True), _travel(matches, day_first=False)
    return None if by_day == by_month else by_day < by_month


def _travel(matches: Sequence[re.Match[str]], *, day_first: bool) -> int:
    days = [
        dt.date(
            int(match["year"]), int(match["second" if day_first else "first"]), int(match["first" if day_first else "second"])
        ).toordinal()
        for match in matches
    ]
    return sum(abs(after - before) for before, after in pairwise(days))
