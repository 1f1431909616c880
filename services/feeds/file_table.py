"""Reads CSV (any delimiter and encoding) and Parquet files, also compressed, as tables of cells. The content decides, not the file name.

CSV needs only the standard library, so that a plain installation reads it; Parquet needs the extra `parquet`.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cramjam

_DELIMITERS: Final = (",", ";", "\t", "|")
_SAMPLE_LINES: Final = 40
_PARQUET: Final = b"PAR1"
_ZIP: Final = b"PK\x03\x04"
_REFUSED: Final = {
    b"ARROW1": "an Arrow or Feather file; save it as Parquet",
    b"\x89HDF": "an HDF5 file; save it as Parquet or CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save it as CSV",
    b"%PDF": "a PDF; export CSV instead",
}
_DAMAGES: Final = (EOFError, OSError, ValueError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, cramjam.DecompressionError)


class FileError(Exception):
    """A file cannot be read as candles; the text names the file and, where there is one, the row, the column and the value."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file."""

    number: int
    """The line of a CSV file or the row of a Parquet file, from 1."""
    cells: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A file's rows. For CSV they include the header, which `services.feeds.headers` finds."""

    path: Path
    unit: str
    """What `Row.number` counts: `line` or `row`."""
    names: Sequence[str] | None
    """The columns of a Parquet file; None for CSV."""
    rows: Sequence[Row]
    delimiter: str = ","

    def error(self, row: Row, problem: str) -> FileError:
        """Return an error that names the file and the row."""
        return FileError(f"{self.path}, {self.unit} {row.number}: {problem}")


def read_table(path: Path, *, growing: bool = False) -> Table:
    """Return the cells of `path`: strings from CSV, Python values from Parquet; raise FileError when it cannot be read.

    Of a `growing` file, a last line without a line break is left out.
    """
    if not path.exists():
        raise FileError(f"{path}: there is no such file")
    if path.is_dir():
        raise FileError(f"{path} is a folder; name the files in it")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error
    content = _unpacked(path, content)
    if content.startswith(_PARQUET):
        return _parquet(path, content)
    if path.name.lower().endswith(".parquet"):
        raise FileError(f"{path} is damaged or not a Parquet file: it does not begin with {_PARQUET.decode()}")
    text = _text(path, content)
    return csv_table(path, text[: text.rfind("\n") + 1] if growing else text)


def csv_table(path: Path, text: str) -> Table:
    """Return the cells of CSV text; raise FileError when there are none."""
    if not text.strip():
        raise FileError(f"{path}: the file is empty")
    if text.lstrip()[0] in "{[<" and not text.lstrip().lower().startswith(("<ticker>", "<date>", "<dtyyyymmdd>")):
        raise FileError(f"{path} is neither CSV nor Parquet: it begins with {text.lstrip()[:20]!r}")
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows: list[Row] = []
    try:
        # A quoted cell may contain line breaks: the number is that of the row's last line.
        rows.extend(Row(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row))
    except csv.Error as error:
        raise FileError(f"{path}, line {reader.line_num} cannot be read as CSV: {error}") from error
    return Table(path, "line", None, _without_empty_ends(rows), delimiter)


def _without_empty_ends(rows: list[Row]) -> list[Row]:
    """Return the rows without an always-empty last column, which a delimiter at the end of each line makes."""
    if rows and len(rows[0].cells) > 1 and all(row.cells[-1] == "" for row in rows) and len({len(row.cells) for row in rows}) == 1:
        return [Row(row.number, row.cells[:-1]) for row in rows]
    return rows


def _unpacked(path: Path, content: bytes) -> bytes:
    """Return the decompressed content; other files are returned unchanged."""
    for magic, what in _REFUSED.items():
        if content.startswith(magic):
            raise FileError(f"{path} is {what}")
    try:
        if content.startswith(b"\x1f\x8b"):
            return gzip.decompress(content)
        if content.startswith(b"BZh"):
            return bz2.decompress(content)
        if content.startswith(b"\xfd7zXZ\x00"):
            return lzma.decompress(content)
        if content.startswith(b"\x28\xb5\x2f\xfd"):
            return bytes(cramjam.zstd.decompress(content))
        if content.startswith(_ZIP):
            return _unzipped(path, content)
    except _DAMAGES as error:
        raise FileError(f"{path} is damaged: it cannot be decompressed ({error})") from error
    if path.name.lower().endswith((".gz", ".zip", ".zst", ".bz2", ".xz")) and b"\x00" in content[:1000]:
        raise FileError(f"{path} is damaged: its content does not match its name")
    return content


def _unzipped(path: Path, content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
        if "[Content_Types].xml" in names:
            raise FileError(f"{path} is an Excel workbook; save it as CSV")
        if len(names) != 1:
            raise FileError(f"{path} holds {len(names)} files ({', '.join(names[:3])}); unpack it and name those to read")
        return archive.read(names[0])


def _text(path: Path, content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif (half := _half_of_utf16(content)) is not None:
        encoding = half
    elif b"\x00" in content:
        raise FileError(f"{path} is neither CSV nor Parquet: it holds binary data")
    else:
        encoding = "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        # Western European spreadsheets write it, and it decodes any byte.
        return content.decode("latin-1")


def _half_of_utf16(content: bytes) -> str | None:
    """Return the encoding of UTF-16 text without a byte order mark: every other byte of its Latin characters is 0."""
    even, odd = content[:400:2], content[1:400:2]
    for encoding, zeros, letters in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if letters and len(content) % 2 == 0 and not any(zeros) and all(letters):
            return encoding
    return None


def _delimiter(text: str) -> str:
    """Return the delimiter that splits the first lines most consistently, then into the most columns."""
    lines = [line for line in text.splitlines()[: _SAMPLE_LINES * 2] if line.strip()][:_SAMPLE_LINES]
    best, best_score = ",", (0, 0)
    for delimiter in _DELIMITERS:
        counts = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        usual = max(set(counts), key=lambda count: (counts.count(count), count))
        # Consistency counts first: with `;` as delimiter, decimal commas split lines unevenly.
        score = (counts.count(usual) if usual > 1 else 0, usual)
        if score > best_score or (score == best_score and delimiter in ";\t"):
            best, best_score = delimiter, score
    return best


def _parquet(path: Path, content: bytes) -> Table:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise FileError(f"{path}: Parquet files need pyarrow; install it with: pip install 'aquiline[parquet]'") from error
    try:
        table = parquet.read_table(pa.BufferReader(content))
        columns = [list(_values(column)) for column in table.columns]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileError(f"{path} is damaged or not a Parquet file: {str(error).splitlines()[0]}") from error
    rows = [Row(number, cells) for number, cells in enumerate(zip(*columns, strict=True), start=1)]
    if not rows:
        raise FileError(f"{path}: the file holds no rows")
    return Table(path, "row", table.column_names, rows)


def _values(column: Any) -> Iterator[Any]:
    """Yield a column's values. Times are cast to microseconds, as nanoseconds would need pandas."""
    import pyarrow as pa  # noqa: PLC0415

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    yield from column.to_pylist()
