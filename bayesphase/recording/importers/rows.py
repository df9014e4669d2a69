"""The rows of files that hold a table: CSV, TSV, parquet, JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

Row = tuple[int, dict[str, Any]]


class Table(NamedTuple):
    """Columns in their order, and rows with the line (or row) of the file that each stands in.

    `rows` gives each row once. What is cut off at the end of the file is not among them: `cut`,
    filled when the rows have been gone through, says so.
    """

    columns: list[str]
    rows: Iterable[Row]
    cut: list[tuple[str, str]]
    unit: str = "line"


def read_table(path: Path) -> Table:
    """Open a table by its suffix.

    Raises
    ------
    ValueError
        If the file is empty or not what its suffix says; for a line that is not, with its number,
        also while the rows are gone through.
    ImportError
        If it is parquet, and pyarrow is not installed.
    """
    readers: dict[str, Callable[[Path], Table]] = {
        ".parquet": _parquet,
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".json": _json_list,
    }
    return readers.get(path.suffix.lower(), _separated)(path)


class _Lines:
    """The lines of a text file, and the one that was read last."""

    def __init__(self, path: Path) -> None:
        self._lines = _lines(path)
        self.last = ""

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.last = line
            yield line.removeprefix("\ufeff")


def _separated(path: Path) -> Table:
    header = next(_lines(path), "")
    if not header.strip("\ufeff\r\n ,;\t"):
        raise ValueError(f"{path}:1: expected a line with the names of columns, found nothing")
    lines = _Lines(path)
    separator = "\t" if path.suffix.lower() == ".tsv" else max(",\t;", key=header.count)
    reader = csv.reader(lines, delimiter=separator)
    cells = _cells(path, reader)
    columns = [name.strip() for name in next(cells)[1]]
    if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise ValueError(f"{path}:1: the column {twice[0]!r} occurs more than once: rename one")
    cut: list[tuple[str, str]] = []

    def rows() -> Iterator[Row]:
        held: tuple[int, list[str]] | None = None  # the one that is too short, if it is the last
        for at, found in cells:
            if held or len(found) > len(columns):
                at, found = held or (at, found)
                raise ValueError(
                    f"{path}:{at}: {len(found)} cells, expected {len(columns)} as in the header"
                )
            if len(found) < len(columns):
                held = (at, found)
            else:
                yield at, dict(zip(columns, found, strict=True))
        if held and lines.last.endswith("\n"):
            raise ValueError(
                f"{path}:{held[0]}: {len(held[1])} cells, expected {len(columns)} as in the header"
            )
        if held:
            cut.append(("the last line is cut off", f"{path}:{held[0]}"))

    return Table(columns, rows(), cut)


def _cells(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that is not blank, with its line."""
    try:
        for cells in reader:
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}") from error


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for at, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{at}: no text in UTF-8 ({error.reason})") from error


def _json_lines(path: Path) -> Table:
    found: list[Row] = []
    cut: list[tuple[str, str]] = []
    for at, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if not line.endswith("\n"):  # only the last line can lack it
                cut.append(("the last line is cut off", f"{path}:{at}"))
                break
            raise ValueError(f"{path}:{at}: no JSON: {error}") from error
        found.append((at, _json_object(row, f"{path}:{at}")))
    return _of_objects(path, found, cut)


def _json_list(path: Path) -> Table:
    rows = read_json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path}: a JSON {type(rows).__name__}, expected a list of rows")
    found = [(at, _json_object(row, f"{path}, row {at}")) for at, row in enumerate(rows, 1)]
    return _of_objects(path, found, [])._replace(unit="row")


def _of_objects(path: Path, rows: list[Row], cut: list[tuple[str, str]]) -> Table:
    if not rows:
        raise ValueError(f"{path}: no rows in it")
    return Table(list(dict.fromkeys(name for _, row in rows for name in row)), rows, cut)


def _json_object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a {type(row).__name__}, expected an object of names and values")
    return row


def read_json(path: Path) -> Any:
    """Read a JSON file; ``NaN`` and ``Infinity``, which Python writes, are read as well.

    Raises
    ------
    ValueError
        If it is no JSON, with the line where it is not.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: no JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: no text in UTF-8 ({error.reason} at byte {error.start})"
        ) from error
    except (ValueError, RecursionError) as error:  # thousands of digits, or of brackets
        raise ValueError(f"{path}: no JSON that can be read: {error}") from error


def _parquet(path: Path) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ImportError(f"{path}: parquet needs pyarrow, install bayesphase[logs]") from error
    try:
        file = parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path}: no parquet file that can be read: {error}") from error

    def rows() -> Iterator[Row]:
        at = 0
        try:
            with file:
                for batch in file.iter_batches(batch_size=4096):
                    for row in batch.to_pylist():
                        at += 1
                        yield at, row
        except (ArrowException, OSError) as error:
            raise ValueError(f"{path}, row {at + 1}: can't be read: {error}") from error

    return Table(list(file.schema_arrow.names), rows(), [], "row")
