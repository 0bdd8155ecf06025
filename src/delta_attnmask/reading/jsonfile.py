"""A JSON list or a JSONL file as a container of rows, streamed, each row with its very bytes. No torch here.

A list may stand in an object under the one key `annotations`, as in MiniGPT-4's files.

A list is looked at as Latin-1 text: one character a byte, so positions are byte offsets, and JSON's structure, which
is ASCII, is found before anything is decoded. `json`'s C scanner then gives a row's end and its value in one step.
ijson is twice as fast on small rows, but gives neither the bytes of a row nor a way past one that is broken.

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
from typing import Any, BinaryIO, Literal, NamedTuple

from delta_attnmask.errors import DataError, ReasonCode, RowError
from delta_attnmask.reading.containers import RawRow, open_input, show_bytes
from delta_attnmask.reading.windows import EndFinder, Window

Layout = Literal["list", "lines", "annotations"]

CHUNK_BYTES = 1 << 18
MAX_ROW_BYTES = 16 << 20
_WHITESPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_DECODER = json.JSONDecoder()
_ANNOTATIONS = re.compile(rb'\{[ \t\r\n]*"annotations"[ \t\r\n]*:[ \t\r\n]*\[')
_ROWS_PER_MARK = 64
_KINDS: dict[Layout, str] = {
    "list": "a JSON list",
    "lines": "JSONL",
    "annotations": "a JSON object of annotations",
}


class Mark(NamedTuple):
    """A place from which rows can be read without reading what is before it."""

    row: int
    offset: int


class JsonFile:
    """Rows found by their byte offsets, of which every 64th is kept once they are counted."""

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

    @property
    def n_rows(self) -> int:
        """Found by reading the file once; DataError if it is broken anywhere."""
        return self._n_rows_and_marks[0]

    @cached_property
    def _n_rows_and_marks(self) -> tuple[int, tuple[Mark, ...]]:
        n_rows, marks = 0, []
        for row in iter_rows(self.path):
            if row.row % _ROWS_PER_MARK == 0:
                marks.append(Mark(row.row, row.start))
            n_rows += 1
        return n_rows, tuple(marks)

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[RawRow]:
        """From the start nothing needs to be counted first."""
        if start == 0:
            yield from islice(iter_rows(self.path), stop)
            return
        n_rows, marks = self._n_rows_and_marks
        stop = n_rows if stop is None else min(stop, n_rows)
        if start >= stop:
            return
        mark = marks[start // _ROWS_PER_MARK]
        yield from islice(iter_rows(self.path, since=mark), start - mark.row, stop - mark.row)

    def read_image(self, row: int, number: int) -> bytes:
        """JSON holds images only as `data:` URIs, which are read with the row."""
        raise RowError(ReasonCode.IMAGE_MISSING, f"image {number} of row {row}: JSON has no images of its own")


def iter_rows(
    path: Path, *, since: Mark | None = None, chunk_bytes: int = CHUNK_BYTES, max_row_bytes: int = MAX_ROW_BYTES
) -> Iterator[RawRow]:
    """Yield every row in order, from `since` if given; memory is bounded by a small multiple of the longest row.

    A row that can't be parsed, or is longer than `max_row_bytes`, is yielded with a reason. Raises DataError, with the
    byte offset, where the file itself is neither a JSON list nor JSONL.
    """
    with open_input(path) as file:
        layout, first = _find_layout(file, path)
        row, offset = since or Mark(0, first)
        file.seek(offset)
        if layout == "lines":
            yield from _iter_lines(file, row, offset, max_row_bytes)
        else:
            yield from _iter_list(Window(file, offset, chunk_bytes, path), row, max_row_bytes, layout)


def _find_layout(file: BinaryIO, path: Path) -> tuple[Layout, int]:
    """The layout, and the byte offset from which rows are read: after the `[` of a list, or the first line."""
    offset = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
    file.seek(offset)
    while (head := file.read(CHUNK_BYTES)) and not head.strip(_WHITESPACE):
        offset += len(head)
    first = head.lstrip(_WHITESPACE)
    if not first:
        raise DataError(f"{path} is empty; expected a JSON list or one JSON object a line")
    if first.startswith(b"["):
        return "list", offset + len(head) - len(first) + 1
    if wrapped := _ANNOTATIONS.match(first):
        return "annotations", offset + len(head) - len(first) + wrapped.end()
    line = first.partition(b"\n")[0].strip(_WHITESPACE)
    if line.startswith(b"{") and line.endswith((b"{", b"[", b",", b":")):
        raise DataError(f"{path} holds one JSON object over several lines; expected a list or one object a line")
    if line.startswith(b"{") or path.suffix.lower() in {".jsonl", ".ndjson"}:
        return "lines", offset
    start = show_bytes(first[:12])
    raise DataError(
        f"{path} starts with {start}; expected a JSON list ('[') or one JSON object a line ('{{'), in UTF-8"
    )


def _iter_lines(file: BinaryIO, row: int, offset: int, max_row_bytes: int) -> Iterator[RawRow]:
    while line := file.readline(max_row_bytes + 1):
        start, offset = offset, offset + len(line)
        if len(line) > max_row_bytes and not line.endswith(b"\n"):
            digest = sha256(line)
            while not line.endswith(b"\n") and (line := file.readline(CHUNK_BYTES)):
                digest.update(line)
                offset += len(line)
            yield RawRow(row, start, b"", None, _too_long(max_row_bytes), digest.hexdigest())
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


def _too_long(max_row_bytes: int) -> RowError:
    return RowError(ReasonCode.TOO_LONG, f"longer than {max_row_bytes} bytes")


def _iter_list(window: Window, row: int, max_row_bytes: int, layout: Layout = "list") -> Iterator[RawRow]:
    """Yield the elements from the window's place on; it stands at an element, or at the end of an empty list."""
    is_more = window.skip_space() != "]" or row > 0
    while is_more:
        if window.skip_space() in {"", "]", ","}:
            raise _broken_list(window, f"expected row {row}")
        yield _read_element(window, row, max_row_bytes)
        following = window.skip_space()
        if following not in {",", "]"}:
            raise _broken_list(window, f"after row {row}, expected ',' or ']'")
        is_more = following == ","
        window.pos += is_more
        row += 1
    window.pos += 1
    if layout == "annotations":
        if window.skip_space() != "}":
            raise _broken_list(window, "after `annotations`, expected '}'")
        window.pos += 1
    if window.skip_space():
        raise _broken_list(window, "after the end of the list, expected the end of the file")


def _broken_list(window: Window, where: str) -> DataError:
    got = repr(window.text[window.pos : window.pos + 12]) if window.pos < len(window.text) else "the end of the file"
    hint = "; is it truncated?" if window.pos >= len(window.text) else ""
    return DataError(f"{window.path} is no JSON list: at byte {window.offset}, {where}, got {got}{hint}")


def _read_element(window: Window, row: int, max_row_bytes: int) -> RawRow:
    start, is_scalar = window.offset, window.text[window.pos] not in '{["'
    value, end = (None, 0) if is_scalar else _decode(window)
    is_decoded = end > 0
    if not is_decoded:
        end = _measure(window, row, max_row_bytes)
    if end - window.pos > max_row_bytes:
        return RawRow(row, start, b"", None, _too_long(max_row_bytes), _skip_element(window, row))
    raw = window.text[window.pos : end].encode("latin-1")
    window.pos = end
    error = None
    if not is_decoded or not raw.isascii():
        value, error = parse_row(raw)
    if error and is_scalar:
        raise DataError(
            f"{window.path} is no JSON list: at byte {start}, row {row} is {raw[:20]!r}, expected an object"
        )
    return RawRow(row, start, raw, value, error)


def _decode(window: Window) -> tuple[Any, int]:
    """The value that starts at the window's place, and its end; 0 if it is broken, or only cut by the window's end."""
    try:
        return _DECODER.raw_decode(window.text, window.pos)
    except (ValueError, RecursionError):
        return None, 0


def _measure(window: Window, row: int, max_row_bytes: int) -> int:
    """Grow the window until it holds the element, or more than is allowed, and return how far that is."""
    finder = EndFinder()
    end = finder.advance(window.text, window.pos)
    while not finder.found and end - window.pos <= max_row_bytes:
        end -= window.pos  # growing drops what is before the window's place
        if not window.grow():
            _refuse_truncated(window, row, finder)
            break
        end = finder.advance(window.text, end)
    return end


def _skip_element(window: Window, row: int) -> str:
    """Skip an element of any length in bounded memory, and return the hex SHA-256 of its bytes."""
    finder, digest = EndFinder(), sha256()
    while True:
        end = finder.advance(window.text, window.pos)
        digest.update(window.text[window.pos : end].encode("latin-1"))
        window.pos = end
        if finder.found:
            return digest.hexdigest()
        if not window.grow():
            _refuse_truncated(window, row, finder)
            return digest.hexdigest()


def _refuse_truncated(window: Window, row: int, finder: EndFinder) -> None:
    if finder.depth or finder.in_string:
        window.pos = len(window.text)
        raise _broken_list(window, f"inside row {row}")
