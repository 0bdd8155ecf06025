"""The file of a review: one SQLite database to which rows are only ever added.

An answer is on the disk before the rater sees the next question. Taking one back adds a row that supersedes it, so
everything that anybody ever clicked can be looked up. Several processes may write at a time.
"""

import json
import sqlite3
import threading
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.reviewing.pairs import Pair, Review
from delta_attnmask.reviewing.protocol import ANSWERS, Answer, questions_of

_APPLICATION_ID = 0x64415256  # marks the file as a review
_SCHEMA = 1
_BUSY_S = 15.0
_RETRY_S = 0.01
MAX_NAME_CHARS = 40

_TABLES = {
    "review": "only INTEGER PRIMARY KEY CHECK (only = 1), value TEXT NOT NULL, created TEXT NOT NULL",
    "pair": (
        "position INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, source TEXT NOT NULL, "
        "first TEXT NOT NULL, second TEXT NOT NULL, target TEXT NOT NULL, repeats INTEGER REFERENCES pair"
    ),
    "rater": "id INTEGER PRIMARY KEY, name TEXT NOT NULL, folded TEXT NOT NULL UNIQUE, created TEXT NOT NULL",
    "judgement": (
        "id INTEGER PRIMARY KEY, rater INTEGER NOT NULL REFERENCES rater, position INTEGER NOT NULL REFERENCES pair, "
        "question TEXT NOT NULL, answer TEXT, supersedes INTEGER UNIQUE REFERENCES judgement, "
        "nonce TEXT NOT NULL UNIQUE, created TEXT NOT NULL"
    ),
}
# REPLACE deletes what is in its way without asking the trigger for DELETE, so it has to be met earlier.
_IN_THE_WAY = {
    "review": "only = NEW.only",
    "pair": "position = NEW.position OR token = NEW.token",
    "rater": "id = NEW.id OR folded = NEW.folded",
    "judgement": "id = NEW.id OR nonce = NEW.nonce OR supersedes = NEW.supersedes",
}
# The rows that no later row supersedes.
_CURRENT = "FROM judgement AS j WHERE NOT EXISTS (SELECT 1 FROM judgement WHERE supersedes = j.id)"


@dataclass(frozen=True)
class Rater:
    id: int
    name: str


@dataclass(frozen=True)
class Judgement:
    """What a rater's answer to one question about one pair stands at."""

    rater: str
    position: int
    question: str
    answer: Answer
    created: datetime


class ReviewStore:
    """An open review file; may be used by several threads. Raises ArtifactError for what is no review."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self._lock = threading.Lock()
        address = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        with self._named_errors():
            self._connection = sqlite3.connect(
                address, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            with ExitStack() as closing:
                closing.callback(self._connection.close)
                self._prepare()
                closing.pop_all()

    def _prepare(self) -> None:
        # Tables first: what says whose they are was committed with them, perhaps by another process just now.
        if self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            if self._pragma("application_id") != _APPLICATION_ID:
                raise ArtifactError(f"{self.path} is a database, but not of a review; choose another file")
            if (version := self._pragma("user_version")) != _SCHEMA:
                raise ArtifactError(f"{self.path} is a review of another version ({version}); expected {_SCHEMA}")
        self._write_ahead()
        for pragma in ("synchronous = FULL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}")

    def _write_ahead(self) -> None:
        """Keep a write-ahead log. The switch to it doesn't wait for others by itself, as every other statement does."""
        until_s = time.monotonic() + _BUSY_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until_s:
                    raise
                time.sleep(_RETRY_S)

    def _pragma(self, name: str) -> int:
        (value,) = self._connection.execute(f"PRAGMA {name}").fetchone()
        return int(value)

    @classmethod
    def create(cls, path: Path, review: Review, pairs: Sequence[Pair]) -> Self:
        """Write a new review; one that another process has begun meanwhile is kept, and must be the same."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"{path.parent} can't be made: {error.strerror}") from error
        store = cls(path, create=True)
        with store._writing() as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                _make_tables(connection)
                _fill(connection, review, pairs)
        if store.review != review:
            raise ArtifactError(f"{path} holds another review; choose another file")
        return store

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """Open a review; None if there is none, or its writing was cut off before it was whole."""
        if not path.exists():
            return None
        store = cls(path)
        if store._read("SELECT 1 FROM sqlite_master"):
            return store
        store.close()
        return None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a review that exists."""
        store = cls.find(path)
        if store is None:
            raise ArtifactError(f"{path} holds no review; `delta-attnmask review RUN --selection FILE --out` makes one")
        return store

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @property
    def review(self) -> Review:
        ((value,),) = self._read("SELECT value FROM review")
        try:
            return Review(**json.loads(value))
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"{self.path} was written by another version: {error}") from error

    def pairs(self) -> tuple[Pair, ...]:
        """All pairs in the order in which they are shown."""
        rows = self._read("SELECT position, token, kind, source, first, second, target, repeats FROM pair ORDER BY 1")
        return tuple(
            Pair(
                position=position,
                token=token,
                kind=kind,
                source=source,
                first=tuple(json.loads(first)),
                second=tuple(json.loads(second)),
                target=target,
                repeats=repeats,
            )
            for position, token, kind, source, first, second, target, repeats in rows
        )

    def enter(self, name: str) -> Rater:
        """The rater of this name, made if there is none; names that differ by case or spaces alone are one.

        Raises SettingsError for what is no name.
        """
        shown = " ".join(unicodedata.normalize("NFC", name).split())
        if not 0 < len(shown) <= MAX_NAME_CHARS or not shown.isprintable():
            raise SettingsError(f"name: expected 1 to {MAX_NAME_CHARS} printable characters, got {len(shown)}")
        folded = shown.casefold()
        with self._writing() as connection:
            if not connection.execute("SELECT 1 FROM rater WHERE folded = ?", [folded]).fetchone():
                values = (shown, folded, _now())
                connection.execute("INSERT INTO rater (name, folded, created) VALUES (?, ?, ?)", values)
            return Rater(*connection.execute("SELECT id, name FROM rater WHERE folded = ?", [folded]).fetchone())

    def raters(self) -> tuple[Rater, ...]:
        return tuple(Rater(*row) for row in self._read("SELECT id, name FROM rater ORDER BY id"))

    def judge(self, rater: Rater, pair: Pair, question: str, answer: str, nonce: str) -> None:
        """Store an answer, durably before this returns; it supersedes the rater's earlier one.

        nonce: made by whoever sends the answer; what is sent twice is stored once. Raises SettingsError for what is
        no question of the pair, or no answer.
        """
        if question not in {one.name for one in questions_of(pair.kind)}:
            raise SettingsError(f"question={question!r}: not one of this pair's")
        if answer not in ANSWERS:
            raise SettingsError(f"answer={answer!r}: expected one of {', '.join(ANSWERS)}")
        with self._writing() as connection:
            where = "AND j.rater = ? AND j.position = ? AND j.question = ?"
            before = connection.execute(f"SELECT j.id {_CURRENT} {where}", [rater.id, pair.position, question])
            found = before.fetchone()
            _append(connection, nonce, rater.id, pair.position, question, answer, found and found[0])

    def undo(self, rater: Rater, nonce: str) -> None:
        """Take back the rater's latest answer that still stands, if there is one."""
        with self._writing() as connection:
            where = "AND j.rater = ? AND j.answer IS NOT NULL ORDER BY j.id DESC LIMIT 1"
            latest = connection.execute(f"SELECT j.id, j.position, j.question {_CURRENT} {where}", [rater.id])
            if (found := latest.fetchone()) is not None:
                before, position, question = found
                _append(connection, nonce, rater.id, position, question, None, before)

    def answers(self, rater: Rater) -> dict[tuple[int, str], Answer]:
        """The rater's answers that stand, by position and question."""
        where = "AND j.rater = ? AND j.answer IS NOT NULL"
        rows = self._read(f"SELECT j.position, j.question, j.answer {_CURRENT} {where}", [rater.id])
        return {(position, question): answer for position, question, answer in rows}

    def judgements(self) -> list[Judgement]:
        """All answers that stand, in the order in which they were given."""
        columns = "(SELECT name FROM rater WHERE id = j.rater), j.position, j.question, j.answer, j.created"
        rows = self._read(f"SELECT {columns} {_CURRENT} AND j.answer IS NOT NULL ORDER BY j.id")
        return [
            Judgement(rater, position, question, answer, datetime.fromisoformat(created))
            for rater, position, question, answer, created in rows
        ]

    def _read(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        with self._lock, self._named_errors():
            return self._connection.execute(query, list(values)).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that holds the file's write lock from its start, so that nothing read in it gets stale."""
        with self._lock, self._named_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ArtifactError(f"review {self.path} can't be used: {error}") from error


def _append(
    connection: sqlite3.Connection,
    nonce: str,
    rater_id: int,
    position: int,
    question: str,
    answer: str | None,
    before: int | None,
) -> None:
    if connection.execute("SELECT 1 FROM judgement WHERE nonce = ?", [nonce]).fetchone():
        return
    columns = "rater, position, question, answer, supersedes, nonce, created"
    values = (rater_id, position, question, answer, before, nonce, _now())
    connection.execute(f"INSERT INTO judgement ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {_SCHEMA}")
    for table, columns in _TABLES.items():
        connection.execute(f"CREATE TABLE {table} ({columns})")
        refuse = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        for event in ("UPDATE", "DELETE"):
            connection.execute(f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table} {refuse}")
        when = f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {_IN_THE_WAY[table]})"
        connection.execute(f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} {when} {refuse}")


def _fill(connection: sqlite3.Connection, review: Review, pairs: Sequence[Pair]) -> None:
    connection.execute("INSERT INTO review VALUES (1, ?, ?)", [json.dumps(asdict(review)), _now()])
    for pair in pairs:
        values = asdict(pair) | {"first": json.dumps(pair.first), "second": json.dumps(pair.second)}
        marks = ", ".join(f":{name}" for name in values)
        connection.execute(f"INSERT INTO pair ({', '.join(values)}) VALUES ({marks})", values)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
