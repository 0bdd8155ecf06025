"""What judges answered: files that the page saves or Label Studio exports, checked, and kept beside the protocol."""

import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from delta_attnmask.errors import DataError
from delta_attnmask.reviewing.protocol import ANSWERS, QUESTIONS, Answer, Pair, Protocol
from delta_attnmask.storage import write_text_atomically

FORMAT = "delta-attnmask-answers"
MAX_NAME_CHARS = 40
_FOLDER = "answers"
_MAX_BYTES = 64_000_000
_NAMES = {question.name for question in QUESTIONS}


@dataclass(frozen=True)
class Judgement:
    """A judge's answer to one question about one pair. rater: the judge's name. created: with its time zone."""

    rater: str
    pair: Pair
    question: str
    answer: Answer
    created: datetime


def collect(folder: Path, files: Sequence[Path]) -> None:
    """Copy files of answers into a review's folder; one that is collected twice is kept once.

    Raises DataError for a file with anything in it that is no answer to this review, and keeps nothing then.
    """
    protocol = Protocol.read(folder)
    for file in files:
        read_answers(file, protocol)
    for file in files:
        text = file.read_text(encoding="utf-8")
        write_text_atomically(folder / _FOLDER / f"{sha256(text.encode()).hexdigest()[:16]}.json", text)


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
        latest[name, one.pair.token, one.question] = replace(one, rater=name)
    return list(latest.values())


def read_answers(path: Path, protocol: Protocol) -> list[Judgement]:
    """The answers in one file, of the page or of Label Studio."""
    pairs = {pair.token: pair for pair in protocol.pairs}
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        found = _read_tasks(content) if isinstance(content, list) else _read_file(content, protocol)
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


def _read_tasks(tasks: list[Any]) -> Iterator[tuple[object, object]]:
    """The annotator and each answer of an export, as the page would save it; other regions are skipped."""
    try:
        for task in tasks:
            pair = task["data"]["pair"]
            for annotation in task["annotations"]:
                by = annotation.get("completed_by")
                name = f"Label Studio {(by.get('email') or by.get('id')) if isinstance(by, dict) else by}"
                at = annotation.get("updated_at") or annotation.get("created_at") or "1970-01-01"
                for result in [] if annotation.get("was_cancelled") else annotation["result"]:
                    if (question := result.get("from_name")) in _NAMES:
                        (choice,) = result["value"]["choices"]
                        yield name[:MAX_NAME_CHARS], {"pair": pair, "question": question, "answer": choice, "at": at}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"expected an export of Label Studio, tasks with annotations, got {error!r}") from error


def _parse(rater: object, answer: Any, pairs: dict[str, Pair]) -> Judgement:
    """The judgement, if every value is what it may be."""
    fields = ("pair", "question", "answer", "at")
    if not isinstance(answer, dict) or not all(isinstance(answer.get(field), str) for field in fields):
        raise ValueError(f"expected pair, question, answer and at as texts, got {answer!a:.80}")
    token, question, given, at = (answer[field] for field in fields)
    if token not in pairs or question not in _NAMES:
        raise ValueError(f"pair {token!a:.80} with question {question!a:.80} isn't in this review")
    if given not in ANSWERS:
        raise ValueError(f"answer {given!a:.80}: expected one of {', '.join(ANSWERS)}")
    name = " ".join(unicodedata.normalize("NFC", rater).split()) if isinstance(rater, str) else ""
    if not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise ValueError(f"a judge's name has 1 to {MAX_NAME_CHARS} printable characters, got {rater!a:.80}")
    time = datetime.fromisoformat(at)
    return Judgement(name, pairs[token], question, given, time if time.tzinfo else time.replace(tzinfo=UTC))
