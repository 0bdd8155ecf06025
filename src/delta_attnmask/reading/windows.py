"""A file seen through a sliding window, and where a JSON value in it ends. No torch here."""

import re
from pathlib import Path
from typing import BinaryIO

_NON_SPACE = re.compile(r"[^ \t\n\r]")


class Window:
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


class EndFinder:
    """Finds where a JSON value ends, by its quotes and brackets alone; in pieces, and at any depth: it doesn't recurse.

    advance() is called until `found`; `depth` and `in_string` say where the pieces so far ended.
    """

    # strings and innermost brackets are passed in one step, and brackets in runs: that bounds the time of hostile rows
    _FLAT = re.compile(
        r'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+"|\[[^"{}\[\]]*+\]|\{[^"{}\[\]]*+\})*+(?P<run>[{\[]++|[}\]]++|)', re.DOTALL
    )
    _STRING_REST = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
    _SCALAR_END = re.compile(r"[,\]} \t\n\r]")

    def __init__(self) -> None:
        self.depth, self.in_string, self.found = 0, False, False
        self._is_escaped = False  # the last piece ended in a backslash

    def advance(self, text: str, pos: int) -> int:
        """Read on from `pos`; return one past the end of the value if `found`, else the end of the text."""
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
