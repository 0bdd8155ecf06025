"""The rows of a JSON list or a JSONL file, streamed, each with its very bytes. No torch here.

The file is looked at as Latin-1 text: one character a byte, so positions are byte offsets, and JSON's structure, which is
ASCII, is found before anything is decoded. `json`'s C scanner then finds a row's end and its value in one step. This
runs at about the speed of ijson, which gives neither the bytes of a row nor a way past a row that is broken.

What Python's own `json.load` accepts is accepted, as every published loader uses it: NaN and Infinity are numbers,
and of duplicate keys the last one counts.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import SEEK_SET
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from delta_attnmask.errors import DataError

Layout = Literal["list", "lines"]

CHUNK_BYTES = 1 << 18
MAX_ROW_BYTES = 32 << 20
_WHITESPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it stands in the file.

    row: position among the rows, from 0; blank lines of a JSONL file don't count.
    start: byte offset of the row's first byte in the file.
    raw: the row's bytes, without what surrounds them; empty if the row is longer than allowed.
    key: hex SHA-256 of the row's bytes, also if `raw` is empty.
    value: the parsed JSON; None if `reason` says why it couldn't be parsed.
    """

    row: int
    start: int
    raw: bytes
    key: str
    value: Any = None
    reason: str = ""


class Mark(NamedTuple):
    """A place from which rows can be read without reading what is before it."""

    row: int
    offset: int


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
        file.seek(offset, SEEK_SET)
        if layout == "lines":
            yield from _iter_lines(file, row, offset, max_row_bytes)
        else:
            yield from _iter_list(_Window(file, offset, chunk_bytes, path), row, max_row_bytes)


def find_layout(path: Path) -> Layout:
    """Tell a JSON list from JSONL by the first bytes of the content."""
    with open_input(path) as file:
        return _find_layout(file, path)[0]


def open_input(path: Path) -> BinaryIO:
    """Open a data file for reading; DataError unless it is a regular file that can be read."""
    try:
        if not path.is_file():
            problem = "is not a regular file" if path.exists() else "doesn't exist"
            raise DataError(f"data file {path} {problem}; expected a JSON list or a JSONL file")
        return path.open("rb")
    except OSError as error:
        raise DataError(f"data file {path} can't be read: {error.strerror}") from error


def _find_layout(file: BinaryIO, path: Path) -> tuple[Layout, int]:
    """The layout, and the byte offset from which rows are read: behind the `[` of a list, or the first line."""
    offset = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
    file.seek(offset)
    while (head := file.read(CHUNK_BYTES)) and not head.strip(_WHITESPACE):
        offset += len(head)
    first = head.lstrip(_WHITESPACE)
    if not first:
        raise DataError(f"{path} is empty; expected a JSON list or one JSON object a line")
    if first.startswith(b"["):
        return "list", offset + len(head) - len(first) + 1
    line = first.partition(b"\n")[0].strip(_WHITESPACE)
    if line.startswith(b"{") and line.endswith((b"{", b"[", b",", b":")):
        raise DataError(f"{path} holds one JSON object over several lines; expected a list or one object a line")
    if line.startswith(b"{") or path.suffix.lower() in {".jsonl", ".ndjson"}:
        return "lines", offset
    raise DataError(
        f"{path} starts with {first[:12]!r}; expected a JSON list ('[') or one JSON object a line ('{{'), in UTF-8"
    )


def _iter_lines(file: BinaryIO, row: int, offset: int, max_row_bytes: int) -> Iterator[RawRow]:
    while line := file.readline(max_row_bytes + 1):
        start, offset = offset, offset + len(line)
        if len(line) > max_row_bytes and not line.endswith(b"\n"):
            digest = sha256(line)
            while not line.endswith(b"\n") and (line := file.readline(CHUNK_BYTES)):
                digest.update(line)
                offset += len(line)
            yield RawRow(row, start, b"", digest.hexdigest(), reason=_too_long(max_row_bytes))
        elif raw := line.strip(_WHITESPACE):
            yield _parse_line(row, start + line.index(raw), raw)
        else:
            continue
        row += 1


def _parse_line(row: int, start: int, raw: bytes) -> RawRow:
    value, reason = _parse(raw)
    return RawRow(row, start, raw, sha256(raw).hexdigest(), value, reason)


def _parse(raw: bytes) -> tuple[Any, str]:
    """The value of one complete row, or None and the reason why it has none."""
    try:
        return _DECODER.decode(raw.decode()), ""
    except UnicodeDecodeError as error:
        return None, f"invalid UTF-8 at byte {error.start} of the row"
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error.msg} at character {error.pos} of the row"
    except RecursionError:
        return None, "nested too deeply"
    except ValueError:  # the only other one: an integer of more digits than Python converts
        return None, "a number with too many digits"


def _too_long(max_row_bytes: int) -> str:
    return f"longer than {max_row_bytes} bytes"


class _Window:
    """A sliding part of the file as Latin-1 text; `pos` is where reading stands in it."""

    def __init__(self, file: BinaryIO, offset: int, chunk_bytes: int, path: Path) -> None:
        self.text, self.pos = "", 0
        self.path = path
        self._file, self._base, self._chunk_bytes = file, offset, chunk_bytes

    @property
    def offset(self) -> int:
        """Where reading stands in the file."""
        return self._base + self.pos

    def grow(self) -> bool:
        """Drop what is behind and read at least as much as is left, so that a long row is copied few times."""
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


_NON_SPACE = re.compile(r"[^ \t\n\r]")


def _iter_list(window: _Window, row: int, max_row_bytes: int) -> Iterator[RawRow]:
    """Yield the elements from the window's place on; it stands at an element, or at the end of an empty list."""
    following = window.skip_space()
    if following == "]" and row == 0:
        window.pos += 1
    while following != "]":
        yield _read_element(window, row, max_row_bytes)
        following = window.skip_space()
        if following not in {",", "]"}:
            raise _broken_list(window, f"after row {row}: expected ',' or ']'")
        window.pos += 1
        row += 1
        if following == "," and window.skip_space() == "]":
            raise _broken_list(window, f"after row {row - 1}: expected another row behind the ','")
    if window.skip_space():
        raise _broken_list(window, "behind the end of the list: expected the end of the file")


def _broken_list(window: _Window, where: str) -> DataError:
    got = repr(window.text[window.pos : window.pos + 12]) if window.pos < len(window.text) else "the end of the file"
    hint = "; is it truncated?" if window.pos >= len(window.text) else ""
    return DataError(f"{window.path} is no JSON list: at byte {window.offset}, {where}, got {got}{hint}")


def _read_element(window: _Window, row: int, max_row_bytes: int) -> RawRow:
    start, value, end = window.offset, None, 0
    is_scalar = window.text[window.pos] not in '{["'
    if not is_scalar:
        try:
            value, end = _DECODER.raw_decode(window.text, window.pos)
        except (ValueError, RecursionError):
            pass  # broken, or only cut by the window's end
    is_whole = end > 0
    if not is_whole:
        end = _measure(window, row, max_row_bytes)
    if end - window.pos > max_row_bytes:
        return RawRow(row, start, b"", _skip_element(window, row), reason=_too_long(max_row_bytes))
    raw = window.text[window.pos : end].encode("latin-1")
    window.pos = end
    reason = ""
    if not is_whole or not raw.isascii():
        value, reason = _parse(raw)
    if reason and is_scalar:
        raise DataError(f"{window.path} is no JSON list: at byte {start}, row {row} is {raw[:20]!r}, expected an object")
    return RawRow(row, start, raw, sha256(raw).hexdigest(), value, reason)


def _measure(window: _Window, row: int, max_row_bytes: int) -> int:
    """Grow the window until it holds the element, and return where it ends; stops early once it is longer than allowed."""
    finder = _EndFinder()
    end = finder.advance(window.text, window.pos)
    while not finder.found and end - window.pos <= max_row_bytes:
        end -= window.pos  # growing drops what is behind the window's place
        if not window.grow():
            _refuse_truncated(window, row, finder)
            break
        end = finder.advance(window.text, end)
    return end


def _skip_element(window: _Window, row: int) -> str:
    """Go behind an element of any length in bounded memory, and return the hex SHA-256 of its bytes."""
    finder, digest = _EndFinder(), sha256()
    while True:
        end = finder.advance(window.text, window.pos)
        digest.update(window.text[window.pos : end].encode("latin-1"))
        window.pos = end
        if finder.found:
            return digest.hexdigest()
        if not window.grow():
            _refuse_truncated(window, row, finder)
            return digest.hexdigest()


def _refuse_truncated(window: _Window, row: int, finder: "_EndFinder") -> None:
    if finder.depth or finder.in_string:
        window.pos = len(window.text)
        raise _broken_list(window, f"inside row {row}")


class _EndFinder:
    """Finds the end of a JSON value by its quotes and brackets alone: in pieces, and at any depth, as it doesn't recurse."""

    # strings and innermost brackets are passed in one step and brackets in runs: hostile rows are read at 10 MB/s or more
    _FLAT = re.compile(
        r'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+"|\[[^"{}\[\]]*+\]|\{[^"{}\[\]]*+\})*+(?P<run>[{\[]++|[}\]]++|)', re.DOTALL
    )
    _STRING_REST = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
    _SCALAR_END = re.compile(r"[,\]} \t\n\r]")

    def __init__(self) -> None:
        self.depth, self.in_string, self.found = 0, False, False
        self._is_escaped = False  # the last piece ended in a backslash

    def advance(self, text: str, pos: int) -> int:
        """Read on from `pos`; return the position behind the value if `found`, else the end of the text."""
        while not self.found and pos < len(text):
            if self.in_string:
                pos = self._in_string(text, pos)
            else:
                pos = self._in_brackets(text, pos) if self.depth else self._at_start(text, pos)
        return pos

    def _at_start(self, text: str, pos: int) -> int:
        if text[pos] not in '"{[':
            scalar_end = self._SCALAR_END.search(text, pos)
            self.found = scalar_end is not None
            return scalar_end.start() if scalar_end else len(text)
        self.in_string = text[pos] == '"'
        self.depth = 0 if self.in_string else 1
        return pos + 1

    def _in_string(self, text: str, pos: int) -> int:
        rest = self._STRING_REST.match(text, pos + self._is_escaped)
        end = rest.end() if rest else pos
        self._is_escaped = text.startswith("\\", end)
        if text.startswith('"', end):
            self.in_string, self.found = False, self.depth == 0
        return min(end + 1, len(text))

    def _in_brackets(self, text: str, pos: int) -> int:
        flat = self._FLAT.match(text, pos)
        run, end = (flat["run"], flat.end()) if flat else ("", pos)
        if run.startswith(("{", "[")):
            self.depth += len(run)
        elif len(run) >= self.depth:
            end, self.depth, self.found = end - len(run) + self.depth, 0, True
        else:
            self.depth -= len(run)
        if not self.found and text.startswith('"', end):
            self.in_string = True
            end += 1
        return end
