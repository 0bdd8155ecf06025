"""A JSON list or a JSONL file as a container of rows, streamed, each row with its own bytes. No torch here.

A list may be in an object under the one key `annotations`, as in MiniGPT-4's files.

A list is looked at as Latin-1 text: one character a byte, so positions are byte offsets, and JSON's structure is ASCII.
`json`'s C scanner gives a row's end and its value in one step. In JSONL a broken row fails alone; in a list, whose end
then isn't known, it fails the file.

What Python's own `json.load` accepts is accepted, as every published loader uses it: NaN and Infinity are numbers,
and of duplicate keys the last one counts.
"""

import json
import re
from collections.abc import Iterator
from functools import cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import DataError, ReasonCode, RowError
from delta_attnmask.reading.containers import RawRow, open_input, show_bytes

Layout = Literal["list", "lines", "annotations"]

CHUNK_BYTES = 1 << 18
MAX_ROW_BYTES = 16 << 20
_WHITESPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_DECODER = json.JSONDecoder()
_ANNOTATIONS = re.compile(rb'\{[ \t\r\n]*"annotations"[ \t\r\n]*:[ \t\r\n]*\[')
_NON_SPACE = re.compile(r"[^ \t\n\r]")
_KINDS: dict[Layout, str] = {"list": "a JSON list", "lines": "JSONL", "annotations": "a JSON object of annotations"}


class JsonFile:
    """Rows found by their byte offsets."""

    n_to_detect = 100

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def layout(self) -> Layout:
        with open_input(self.path) as file:
            return _find_layout(file, self.path)[0]

    @property
    def kind(self) -> str:
        return _KINDS[self.layout]

    @property
    def endings(self) -> tuple[str, ...]:
        return (".jsonl", ".ndjson") if self.layout == "lines" else (".json",)

    @cached_property
    def spans(self) -> NDArray[np.int64]:
        """Each row's first byte and one past its last, shape (rows, 2), found by reading the file once.

        Raises DataError if the file is broken anywhere.
        """
        found = ((row.start, row.start + len(row.raw)) for row in iter_rows(self.path))
        return np.fromiter(found, np.dtype((np.int64, 2)))

    @property
    def n_rows(self) -> int:
        return len(self.spans)

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[RawRow]:
        """From the start nothing needs to be counted first."""
        if start == 0:
            yield from islice(iter_rows(self.path), stop)
        elif start < (stop := self.n_rows if stop is None else min(stop, self.n_rows)):
            yield from islice(iter_rows(self.path, start, int(self.spans[start, 0])), stop - start)

    def read_image(self, row: int, number: int) -> bytes:
        """JSON holds images only as `data:` URIs, which are read with the row."""
        raise RowError(ReasonCode.IMAGE_MISSING, f"image {number} of row {row}: JSON has no images of its own")


def iter_rows(
    path: Path, row: int = 0, offset: int = 0, *, chunk_bytes: int = CHUNK_BYTES, max_row_bytes: int = MAX_ROW_BYTES
) -> Iterator[RawRow]:
    """Yield every row in order, from `row` on, which begins at `offset`; memory is a few times the longest row.

    A JSONL row that can't be parsed, or is longer than `max_row_bytes`, is yielded with a reason. Raises DataError,
    with the byte offset, where the file itself is neither a JSON list nor JSONL.
    """
    with open_input(path) as file:
        layout, first = _find_layout(file, path)
        file.seek(offset or first)
        if layout == "lines":
            yield from _iter_lines(file, row, offset or first, max_row_bytes)
        else:
            yield from _iter_list(_Window(file, path, offset or first, chunk_bytes), row, max_row_bytes, layout)


def _find_layout(file: BinaryIO, path: Path) -> tuple[Layout, int]:
    """The layout, and the byte offset from which rows are read: after the `[` of a list, or the first line."""
    head = file.read(CHUNK_BYTES)
    first = head.removeprefix(_BOM).lstrip(_WHITESPACE)
    offset = len(head) - len(first)
    if not first:
        raise DataError(f"{path} is empty; expected a JSON list or one JSON object a line")
    if first.startswith(b"["):
        return "list", offset + 1
    if wrapped := _ANNOTATIONS.match(first):
        return "annotations", offset + wrapped.end()
    line = first.partition(b"\n")[0].strip(_WHITESPACE)
    if line.startswith(b"{") and line.endswith((b"{", b"[", b",", b":")):
        raise DataError(f"{path} holds one JSON object over several lines; expected a list or one object a line")
    if line.startswith(b"{") or path.suffix.lower() in {".jsonl", ".ndjson"}:
        return "lines", offset
    raise DataError(
        f"{path} starts with {show_bytes(first[:12])}; expected a JSON list ('[') or one JSON object a line ('{{'), "
        "in UTF-8"
    )


def _iter_lines(file: BinaryIO, row: int, offset: int, max_row_bytes: int) -> Iterator[RawRow]:
    while line := file.readline(max_row_bytes + 1):
        start, offset = offset, offset + len(line)
        if len(line) > max_row_bytes and not line.endswith(b"\n"):
            digest = sha256(line)
            while not line.endswith(b"\n") and (line := file.readline(CHUNK_BYTES)):
                digest.update(line)
                offset += len(line)
            too_long = RowError(ReasonCode.TOO_LONG, f"longer than {max_row_bytes} bytes")
            yield RawRow(row, start, b"", None, too_long, digest.hexdigest())
        elif raw := line.strip(_WHITESPACE):
            yield RawRow(row, start + line.index(raw), raw, *parse_row(raw))
        else:
            continue
        row += 1


def parse_row(raw: bytes) -> tuple[Any, RowError | None]:
    """The value of one complete row, or None and the reason why it has none."""
    try:
        return _DECODER.decode(raw.decode()), None
    except UnicodeDecodeError as error:
        return None, RowError(ReasonCode.NOT_UNICODE, f"invalid UTF-8 at byte {error.start} of the row")
    except json.JSONDecodeError as error:
        where = f"{error.msg.removesuffix(' at')} at character {error.pos} of the row"
        return None, RowError(ReasonCode.NOT_JSON, f"not JSON: {where}")
    except RecursionError:
        return None, RowError(ReasonCode.NOT_JSON, "nested too deeply")
    except ValueError:  # the only other one: an integer of more digits than Python converts
        return None, RowError(ReasonCode.NOT_JSON, "a number with too many digits")


class _Window:
    """A sliding part of the file as Latin-1 text; `pos` is how far reading has come."""

    def __init__(self, file: BinaryIO, path: Path, offset: int, chunk_bytes: int) -> None:
        self.text, self.pos = "", 0
        self._file, self._path, self._base, self._chunk_bytes = file, path, offset, chunk_bytes

    @property
    def offset(self) -> int:
        """How far reading has come in the file."""
        return self._base + self.pos

    def grow(self) -> bool:
        """Drop what was read and read at least as much as is left, so that a long row is copied few times."""
        left = self.text[self.pos :]
        more = self._file.read(max(self._chunk_bytes, len(left)))
        self._base, self.pos = self.offset, 0
        self.text = left + more.decode("latin-1")
        return bool(more)

    def skip_space(self) -> str:
        """Go to the next character that isn't white space and return it; empty at the file's end."""
        while not (found := _NON_SPACE.search(self.text, self.pos)):
            self.pos = len(self.text)
            if not self.grow():
                return ""
        self.pos = found.start()
        return self.text[self.pos]

    def expect(self, characters: str, where: str) -> str:
        """Pass the next character that isn't white space, one of these, and return it; DataError for another."""
        found = self.skip_space()
        if not found or found not in characters:
            got = repr(self.text[self.pos : self.pos + 12]) if found else "the end of the file; is it truncated?"
            raise self.error(f"{where}, expected {' or '.join(map(repr, characters))}, got {got}")
        self.pos += 1
        return found

    def error(self, what: str) -> DataError:
        return DataError(f"{self._path} is no JSON list: at byte {self.offset}, {what}")


def _iter_list(window: _Window, row: int, max_row_bytes: int, layout: Layout) -> Iterator[RawRow]:
    """Yield the elements from the window's place on; it is at an element, or at the end of an empty list."""
    is_empty = row == 0 and window.skip_space() == "]"
    while not is_empty:
        yield _read_element(window, row, max_row_bytes)
        if window.expect(",]", f"after row {row}") == "]":
            break
        row += 1
    window.pos += is_empty
    if layout == "annotations":
        window.expect("}", "after `annotations`")
    if window.skip_space():
        raise window.error("after the end of the list, expected the end of the file")


def _read_element(window: _Window, row: int, max_row_bytes: int) -> RawRow:
    """The next element, for which the window grows until something follows it."""
    window.skip_space()
    is_whole = False  # whether the window reaches the file's end
    while True:
        problem = "is it truncated?"
        try:
            value, end = _DECODER.raw_decode(window.text, window.pos)
        except (ValueError, RecursionError) as error:
            end = len(window.text)
            if not isinstance(error, json.JSONDecodeError):
                problem = "a value that Python can't hold"
            elif error.pos < end:
                problem = f"{error.msg.removesuffix(' at')} at byte {window.offset - window.pos + error.pos}"
        if end - window.pos > max_row_bytes:
            raise window.error(f"row {row} is broken, or longer than {max_row_bytes} bytes; in JSONL it fails alone")
        if end < len(window.text) - (0 if is_whole else 2):  # 1 and 1.5e3 may be 1 with `.` or `e-` at the window's end
            break
        if is_whole:
            raise window.error(f"row {row} is broken: {problem}")
        is_whole = not window.grow()
    raw = window.text[window.pos : end].encode("latin-1")
    start, window.pos = window.offset, end
    return RawRow(row, start, raw, *((value, None) if raw.isascii() else parse_row(raw)))
