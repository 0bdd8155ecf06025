"""What judges answered: files that the page saves or Label Studio exports, checked, and kept beside the protocol."""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from delta_attnmask.errors import ArtifactError, DataError
from delta_attnmask.reviewing.labelstudio import read_tasks
from delta_attnmask.reviewing.protocol import ANSWERS, QUESTIONS, Answer, Pair, Protocol
from delta_attnmask.storage import write_text_atomically

FORMAT = "delta-attnmask-answers"
MAX_NAME_CHARS = 40
_FOLDER = "answers"
_MAX_BYTES = 64_000_000


@dataclass(frozen=True)
class Judgement:
    """A judge's answer to one question about one pair. rater: the judge's name. created: with its time zone."""

    rater: str
    pair: Pair
    question: str
    answer: Answer
    created: datetime


def collect(folder: Path, files: Iterable[Path]) -> None:
    """Copy files of answers into a review's folder; one that is collected twice is kept once.

    Raises DataError for a file with anything in it that is no answer to this review, and keeps nothing then.
    """
    protocol = Protocol.read(folder)
    checked = [(file, list(read_answers(file, protocol))) for file in files]
    try:
        (folder / _FOLDER).mkdir(exist_ok=True)
        for file, _ in checked:
            text = file.read_text(encoding="utf-8")
            write_text_atomically(folder / _FOLDER / f"{sha256(text.encode()).hexdigest()[:16]}.json", text)
    except OSError as error:
        raise ArtifactError(f"{folder / _FOLDER} can't be written: {error.strerror}") from error


def read_judgements(folder: Path, protocol: Protocol) -> list[Judgement]:
    """All collected answers, in the order in which they were given.

    Of a judge's several answers to one question about one pair the latest counts; names that differ by case or spaces
    alone are one judge's.
    """
    found = [one for path in (folder / _FOLDER).glob("*.json") for one in read_answers(path, protocol)]
    names: dict[str, str] = {}
    latest: dict[tuple[str, str, str], Judgement] = {}
    for one in sorted(found, key=lambda one: one.created):
        name = names.setdefault(one.rater.casefold(), one.rater)
        latest.pop(key := (name, one.pair.token, one.question), None)
        latest[key] = replace(one, rater=name)
    return list(latest.values())


def read_answers(path: Path, protocol: Protocol) -> list[Judgement]:
    """The answers in one file, of the page or of Label Studio."""
    pairs = {pair.token: pair for pair in protocol.pairs}
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        found = read_tasks(content) if isinstance(content, list) else _read_file(content, protocol)
        return [_parse(rater, answer, pairs) for rater, answer in found]
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} can't be used as answers: {error}") from error


def _read_file(file: Any, protocol: Protocol) -> Iterator[tuple[object, object]]:
    if not isinstance(file, dict) or file.get("format") != FORMAT or not isinstance(file.get("answers"), list):
        raise ValueError(f"expected an object with format {FORMAT!r} and a list of answers")
    if file.get("review") != protocol.id:
        raise ValueError("it answers another review; collect it in that review's folder")
    for answer in file["answers"]:
        yield file.get("rater"), answer


def _parse(rater: object, answer: object, pairs: dict[str, Pair]) -> Judgement:
    """The judgement, if every value is what it may be."""
    values = [answer.get(name) for name in ("pair", "question", "answer", "at")] if isinstance(answer, dict) else []
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"expected pair, question, answer and at as texts, got {_shorten(answer)}")
    token, question, given, at = map(str, values)
    if token not in pairs:
        raise ValueError(f"its pair {_shorten(token)} isn't in this review")
    if question not in {one.name for one in QUESTIONS}:
        raise ValueError(f"question {_shorten(question)} isn't one of this review's")
    choice = next((one for one in ANSWERS if one == given), None)
    if choice is None:
        raise ValueError(f"answer {_shorten(given)}: expected one of {', '.join(ANSWERS)}")
    time = datetime.fromisoformat(at)
    created = time if time.tzinfo else time.replace(tzinfo=UTC)
    return Judgement(_parse_name(rater), pairs[token], question, choice, created)


def _parse_name(name: object) -> str:
    shown = " ".join(unicodedata.normalize("NFC", name).split()) if isinstance(name, str) else ""
    if not 0 < len(shown) <= MAX_NAME_CHARS or not shown.isprintable():
        raise ValueError(f"expected a judge's name of 1 to {MAX_NAME_CHARS} printable characters, got {_shorten(name)}")
    return shown


def _shorten(value: object) -> str:
    return ascii(value)[:80]
