"""Rows as arrays: token numbers, answer marks and pictures, ready to be put on one device whole.

Training bypasses the processor for speed; `check.py` holds `encode` to giving exactly what the processor would.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .build import digest
from .modelfiles import END, IMAGE, IMAGE_TOKENS
from .sample import SIDE, Image, Row
from .sources import SOURCES
from .sources.mixing import Split

MIXTURE = {"easyvqa": 0.12, "emoji": 0.30, "scene": 0.37, "chart": 0.165, "text": 0.04, "clipart": 0.005}
TRAINING_SEED = 1_000_003


@dataclass(slots=True)
class Corpus:
    """Rows in flat arrays. Row i owns tokens[starts[i]:starts[i+1]] and the pictures picture_of[i] (-1: none)."""

    tokens: NDArray[np.int16]
    is_answer: NDArray[np.bool_]  # True at the tokens that the model must predict: answers and their end marks
    starts: NDArray[np.int64]
    picture_of: NDArray[np.int32]  # (row, 2)
    pictures: NDArray[np.uint8]  # (picture, 64, 64, 3)
    source_of: NDArray[np.int8]  # index into SOURCES

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per row."""
        return np.diff(self.starts)


def render(turns: Sequence[tuple[str, str]], n_images: int) -> str:
    """The conversation as the chat template writes it, each picture's tag repeated for its patches."""
    tags = (IMAGE * IMAGE_TOKENS + "\n") * n_images
    parts = []
    for i, (asked, answer) in enumerate(turns):
        parts.append(f"<|user|>\n{tags if i == 0 else ''}{asked}{END}\n<|assistant|>\n{answer}{END}\n")
    return "".join(parts)


def encode(tokenizer: Tokenizer, turns: Sequence[tuple[str, str]], n_images: int) -> tuple[list[int], list[bool]]:
    """Token numbers, and True at every answer token with its end mark."""
    ids = tokenizer.encode(render(turns, n_images)).ids
    assistant, end = tokenizer.token_to_id("<|assistant|>"), tokenizer.token_to_id(END)
    marks, position = [False] * len(ids), 0
    while position < len(ids):
        if ids[position] == assistant:
            position += 2  # the tag and its line break
            while ids[position] != end:
                marks[position] = True
                position += 1
            marks[position] = True
        position += 1
    return ids, marks


def pack(rows: Iterable[Row], tokenizer: Tokenizer, forbidden: frozenset[str] = frozenset()) -> Corpus:
    """The rows as arrays; rows with a forbidden picture are dropped, equal pictures are stored once."""
    tokens, marks, starts, picture_of, sources = [], [], [0], [], []
    pictures: dict[str, tuple[int, Image]] = {}
    names = list(SOURCES)
    for row in rows:
        keys = [digest(picture.pixels) for picture in row.pictures]
        if any(key in forbidden for key in keys):
            continue
        ids, is_answer = encode(tokenizer, [(turn.asked, turn.answer) for turn in row.turns], len(keys))
        tokens += ids
        marks += is_answer
        starts.append(len(tokens))
        places = [pictures.setdefault(k, (len(pictures), p.pixels))[0] for k, p in zip(keys, row.pictures, strict=True)]
        picture_of.append([*places, -1, -1][:2])
        sources.append(names.index(row.source))
    stacked = (
        np.stack([pixels for _, pixels in pictures.values()]) if pictures else np.empty((0, SIDE, SIDE, 3), np.uint8)
    )
    return Corpus(
        np.array(tokens, np.int16), np.array(marks), np.array(starts), np.array(picture_of, np.int32).reshape(-1, 2),
        stacked, np.array(sources, np.int8),
    )  # fmt: skip


def join(parts: Sequence[Corpus]) -> Corpus:
    """One corpus of many."""
    picture_of, starts, n_tokens, n_pictures = [], [np.zeros(1, np.int64)], 0, 0
    for part in parts:
        picture_of.append(np.where(part.picture_of >= 0, part.picture_of + n_pictures, -1))
        starts.append(part.starts[1:] + n_tokens)
        n_tokens, n_pictures = n_tokens + len(part.tokens), n_pictures + len(part.pictures)
    return Corpus(
        np.concatenate([p.tokens for p in parts]), np.concatenate([p.is_answer for p in parts]), np.concatenate(starts),
        np.concatenate(picture_of), np.concatenate([p.pictures for p in parts]),
        np.concatenate([p.source_of for p in parts]),
    )  # fmt: skip


def generate(
    n: int,
    split: Split,
    tokenizer_file: Path,
    forbidden: frozenset[str],
    processes: int,
    part: int = 0,
    chunk: int = 4000,
) -> Corpus:
    """About `n` clean rows in the training mixture, drawn by many processes; the same for any number of them.

    Other parts give other rows.
    """
    starts = range(0, n, chunk)
    jobs = [(f"{part}/{start}", min(chunk, n - start), split, str(tokenizer_file), forbidden) for start in starts]
    with TemporaryDirectory(dir=_memory_folder()) as folder, get_context("fork").Pool(processes) as pool:
        files = list(pool.imap(_generate_chunk, [(*job, folder) for job in jobs]))
        return join([_load(Path(file)) for file in files])


def mixture_rows(rng: random.Random, n: int, split: Split) -> Iterator[Row]:
    """`n` rows in the training mixture's shares."""
    for source, share in MIXTURE.items():
        yield from SOURCES[source](rng, max(1, round(n * share)), split)


def _generate_chunk(job: tuple[str, int, Split, str, frozenset[str], str]) -> str:
    name, n, split, tokenizer_file, forbidden, folder = job
    rng = random.Random(f"{TRAINING_SEED}/{split}/{name}")
    part = pack(mixture_rows(rng, n, split), Tokenizer.from_file(tokenizer_file), forbidden)
    file = f"{folder}/{name.replace('/', '-')}.npz"
    np.savez(file, **{field: getattr(part, field) for field in Corpus.__slots__})
    return file


def _load(file: Path) -> Corpus:
    with np.load(file) as arrays:
        return Corpus(**{name: arrays[name] for name in Corpus.__slots__})


def _memory_folder() -> str | None:
    """A folder in memory where there is a roomy one: gigabytes pass through it."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and disk_usage(shared).free > 20e9 else None
