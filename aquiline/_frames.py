"""DataFrames in and out: rows as the feeds' own table, and results in the library that the bars came in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import narwhals as nw
from narwhals.typing import EagerAllowed, IntoDataFrame, IntoDType

from services.feeds.file_table import Row, Table

NAME: Final = "DataFrame"
"""What errors call the frame."""
TIME: Final = nw.Datetime("ms", "UTC")
TEXT: Final = nw.String()
NUMBER: Final = nw.Float64()
WHOLE: Final = nw.Int64()
FLAG: Final = nw.Boolean()
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def table_of(frame: IntoDataFrame) -> tuple[Table, EagerAllowed]:
    """Return a frame as a table whose rows are numbered from 0, and the library that it is of; raise ValueError when it is none."""
    try:
        given = nw.from_native(_flat(frame), eager_only=True)
    except TypeError:
        raise ValueError(f"a pandas, polars or pyarrow DataFrame is expected, not {type(frame).__name__}") from None
    if not len(given):
        raise ValueError("the DataFrame has no rows")
    rows = [Row(number, cells) for number, cells in enumerate(given.iter_rows())]
    return Table(Path(NAME), "row", given.columns, rows), cast("EagerAllowed", given.implementation)


def frame_of(columns: Mapping[str, tuple[IntoDType, Sequence[Any]]], library: EagerAllowed) -> Any:
    """Return a native DataFrame with these columns, each a type and its values."""
    values = {name: list(column) for name, (_, column) in columns.items()}
    return nw.from_dict(values, schema={name: kind for name, (kind, _) in columns.items()}, backend=library).to_native()


def moment(ts_ms: int | None) -> dt.datetime | None:
    """Return milliseconds since 1970 as a time in UTC."""
    return None if ts_ms is None else _EPOCH + dt.timedelta(milliseconds=ts_ms)


def since_1970_ms(at: dt.datetime | int | None, name: str) -> int | None:
    """Return a time as milliseconds since 1970; raise ValueError, naming the argument, for one without a zone."""
    if at is None or isinstance(at, int):
        return at
    if at.utcoffset() is None:
        raise ValueError(f"{name} is {at.isoformat()}, which has no time zone; pass a time with one, such as tzinfo=datetime.UTC")
    return (at - _EPOCH) // dt.timedelta(milliseconds=1)


def _flat(frame: Any) -> Any:
    """Return a pandas frame with its index as columns, and column levels as pandas writes them to CSV; others unchanged."""
    if not nw.dependencies.is_pandas_dataframe(frame):
        return frame
    index = frame.index
    counted = type(index).__name__ == "RangeIndex" or (index.nlevels == 1 and index.name is None and index.dtype.kind in "iu")
    flat = frame if counted else frame.reset_index()
    return flat.set_axis([str(name) for name in flat.columns], axis=1)
