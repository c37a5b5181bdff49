"""From the bytes of any CSV file to a header and records that know their lines.

Nothing here knows what the columns mean, and no input raises: a file that cannot be read is a
`FileRefusal`, a record that cannot be read a `RowRefusal`, and reading goes on behind it.
"""

import codecs
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

RowCode = Literal[
    "ambiguous_amount",
    "bad_amount",
    "bad_currency",
    "bad_date",
    "bad_email",
    "bad_quoting",
    "cell_too_long",
    "duplicate_in_file",
    "missing_value",
    "negative_amount",
    "nul_character",
    "ragged_row",
]
FileCode = Literal["column_missing", "empty_file", "encoding_unknown"]

LONGEST_CELL: Final = 10_000
"""Characters a cell may have."""

ENCODINGS: Final = (
    "utf-8",
    "utf-16-le",
    "utf-16-be",
    "cp1250",
    "cp1251",
    "cp1252",
    "iso-8859-1",
    "iso-8859-15",
    "mac-roman",
    "shift_jis",
    "gb18030",
    "big5",
    "euc-kr",
)
"""What a caller may name. They are never guessed: a wrong guess turns names into other names."""

_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DELIMITERS: Final = (",", ";", "\t", "|")
_HEADER_WITHIN: Final = 20
_REREADS: Final = 4


@dataclass(frozen=True, slots=True)
class RowRefusal:
    """Why one record was not taken: it begins in `line`, and `column` is the title in the file."""

    line: int
    column: str | None
    code: RowCode
    message: str


@dataclass(frozen=True, slots=True)
class FileRefusal:
    """Why nothing at all was taken, and what to do; `column` is our field that is missing."""

    code: FileCode
    message: str
    column: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """The cells of one record, trimmed, each on one line; `line` is where the record begins."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A file's records below its header, every one as wide as the header, and those refused."""

    header: Record
    body: tuple[Record, ...]
    refused: tuple[RowRefusal, ...]


def read_table(data: bytes, encoding: str | None, recognised: Callable[[Sequence[str]], int]) -> Table | FileRefusal:
    """Read a CSV whose delimiter and header row are those under which most titles are `recognised`.

    The header is looked for among the first records, so titles above it are skipped. Where no
    title is recognised, the first record is taken for the header and the caller will miss its
    columns. Lines are physical and counted from 1; blank records are passed over.
    """
    text = _decode(data, encoding)
    if isinstance(text, FileRefusal):
        return text
    lines = list(io.StringIO(text, newline=""))
    headers = [
        (recognised(record.cells), delimiter, record)
        for delimiter in _DELIMITERS
        for record in islice(_records(lines, delimiter), _HEADER_WITHIN)
        if isinstance(record, Record)
    ]
    if not headers:
        message = "The file holds no readable row: it is empty, or no CSV in the encoding taken."
        return FileRefusal("empty_file", message)
    _, delimiter, header = max(headers, key=lambda scored: scored[0])
    body: list[Record] = []
    refused: list[RowRefusal] = []
    for record in _records(lines, delimiter):
        if record.line <= header.line:
            continue
        if isinstance(record, RowRefusal):
            refused.append(record)
        elif len(record.cells) != len(header.cells):
            message = f"The row has {len(record.cells)} cells, the header {len(header.cells)}."
            refused.append(RowRefusal(record.line, None, "ragged_row", message))
        else:
            body.append(record)
    return Table(header, tuple(body), tuple(refused))


def _decode(data: bytes, encoding: str | None) -> str | FileRefusal:
    marked = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
    named = "utf-8" if encoding is None else encoding.casefold()
    known = ", ".join(ENCODINGS)
    if named not in ENCODINGS:
        return FileRefusal("encoding_unknown", f"The encoding may be one of {known}.")
    try:
        return data.decode(marked or named)
    except UnicodeDecodeError as fault:
        message = (
            f"The file is not {marked or named} (byte {fault.start + 1}). "
            f"Save it as UTF-8, or name its encoding: {known}."
        )
        return FileRefusal("encoding_unknown", message)


def _records(lines: Sequence[str], delimiter: str) -> Iterator[Record | RowRefusal]:
    """Yield every record that is not blank, in order.

    A stray quotation mark would swallow what follows it. So of a record with broken quoting only
    the first line is refused, and reading begins again on the next. What may be read again is
    bounded by a multiple of the file; beyond that such a record is refused with all its lines.
    """
    rereads = _REREADS * sum(map(len, lines))
    start = 0
    while start < len(lines):
        first = start
        reader = csv.reader(
            map(lines.__getitem__, range(start, len(lines))),
            delimiter=delimiter,
            skipinitialspace=True,
            strict=True,
        )
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield _record(first + 1, start + reader.line_num, cells)
                first = start + reader.line_num
        except csv.Error as fault:
            behind = start + reader.line_num
            rereads -= sum(len(lines[number]) for number in range(first, behind))
            start = first + 1 if rereads > 0 else behind
            yield _unreadable(first + 1, start, fault)
        else:
            return


def _record(line: int, last: int, cells: Sequence[str]) -> Record | RowRefusal:
    if any(len(cell) > LONGEST_CELL for cell in cells):
        message = f"A cell has more than {LONGEST_CELL} characters."
        if last > line:
            message += f" The row runs to line {last}: look for a stray quotation mark."
        return RowRefusal(line, None, "cell_too_long", message)
    if any("\0" in cell for cell in cells):
        return RowRefusal(line, None, "nul_character", "A cell holds a NUL, which no text has.")
    return Record(line, tuple(" ".join(cell.split()) for cell in cells))


def _unreadable(line: int, last: int, fault: csv.Error) -> RowRefusal:
    code: RowCode = "bad_quoting"
    message = "A quotation mark is not closed, or not doubled inside its cell."
    # The csv module has a limit of its own, and only its words tell that from broken quoting.
    if "field limit" in str(fault):
        code = "cell_too_long"
        message = f"A cell has more than {LONGEST_CELL} characters, or its quotation never closes."
    if last > line:
        message += f" Lines {line} to {last} were left out."
    return RowRefusal(line, None, code, message)
