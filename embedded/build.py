"""Builds what ships: `python -m embedded.build` writes pool.json, test.json, defects.json, images.zip and the cards.

Deterministic: the same packages give the same bytes of JSON and the same pixels.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from .cards import data_card
from .concepts import concepts
from .defects import KINDS, plant
from .licences import licences_text
from .sample import Image, Row, is_right
from .sources import SOURCES
from .sources.clipart import split_places
from .sources.mixing import Split

SHIPPED = Path(__file__).parent.parent / "src" / "delta_attnmask" / "embedded"
SEED = 20261123
SIZES: dict[Split, dict[str, int]] = {
    "pool": {"easyvqa": 420, "emoji": 420, "scene": 480, "chart": 420, "clipart": 330, "fxemoji": 270, "text": 70},
    "test": {"easyvqa": 100, "emoji": 100, "scene": 120, "chart": 100, "clipart": 100, "fxemoji": 80, "text": 20},
}


def main() -> None:
    """Draw, plant, check, write, print the counts."""
    rng = random.Random(SEED)
    pool, test = draw_split(rng, "pool"), draw_split(rng, "test")
    plant(rng, pool)
    check(pool + test)
    test = without(test, {digest(picture.pixels) for row in pool for picture in row.pictures})
    write(SHIPPED, {"pool": pool, "test": test})
    counts = summary(pool, test)
    (SHIPPED / "DATA.md").write_text(data_card(counts, len(concepts()), len(split_places()["train"])))
    (SHIPPED / "LICENSES.md").write_text(licences_text())
    print(json.dumps(counts, indent=1))


def draw_split(rng: random.Random, split: Split) -> list[Row]:
    """The split's clean rows, shuffled over sources; no conversation twice."""
    rows = [row for source, n in SIZES[split].items() for row in SOURCES[source](rng, n, split)]
    unique = {_key(row): row for row in rows}
    return rng.sample(list(unique.values()), len(unique))


def check(rows: list[Row]) -> None:
    """Every clean turn has the answer that the facts give, and every defective row a turn that hasn't."""
    for row in rows:
        wrong = [turn for turn in row.turns if not is_right(turn.question, row.facts, turn.answer)]
        if bool(wrong) != bool(row.defect):
            raise ValueError(f"{row.source}, defect {row.defect}: {[(turn.asked, turn.answer) for turn in row.turns]}")


def without(rows: list[Row], digests: set[str]) -> list[Row]:
    """The rows none of whose pictures is among these."""
    return [row for row in rows if not any(digest(picture.pixels) in digests for picture in row.pictures)]


def digest(pixels: Image) -> str:
    """A short fingerprint of the pixels."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=12).hexdigest()


def write(folder: Path, splits: dict[str, list[Row]]) -> None:
    """The JSON lists and one zip of all pictures, each stored once."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "images.zip", "w", zipfile.ZIP_STORED) as archive:
        for split, rows in splits.items():
            names: dict[str, str] = {}
            entries = [
                to_llava(row, f"{split}-{i:05}", _store(archive, names, split, row)) for i, row in enumerate(rows)
            ]
            _write_list(folder / f"{split}.json", entries)
    planted = {str(i): row.defect for i, row in enumerate(splits["pool"]) if row.defect}
    (folder / "defects.json").write_text(json.dumps(planted, indent=0) + "\n")


def _write_list(path: Path, entries: list[dict[str, object]]) -> None:
    """A JSON list, one entry a line: changes stay readable in a diff."""
    path.write_text("[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]\n")


def to_llava(row: Row, name: str, images: list[str]) -> dict[str, object]:
    """The row in LLaVA's JSON form."""
    entry: dict[str, object] = {"id": name, "source": row.source}
    if images:
        entry["image"] = images[0] if len(images) == 1 else images
    turns = []
    for i, turn in enumerate(row.turns):
        tags = "<image>\n" * len(images) if i == 0 else ""
        turns += [{"from": "human", "value": tags + turn.asked}, {"from": "gpt", "value": turn.answer}]
    return entry | {"conversations": turns}


def summary(pool: list[Row], test: list[Row]) -> dict[str, object]:
    """The counts that DATA.md gives, and the fingerprint of the whole."""
    return {
        "pool": _counts(pool), "test": _counts(test),
        "defects": dict(Counter(row.defect for row in pool if row.defect)),
        "defects by source": {source: _kinds(pool, source) for source in SOURCES},
        "bytes": {path.name: path.stat().st_size for path in sorted(SHIPPED.glob("*.*"))},
        "fingerprint": fingerprint(pool + test),
    }  # fmt: skip


def fingerprint(rows: Iterable[Row]) -> str:
    """Changes with any pixel, question or answer."""
    total = hashlib.blake2b(digest_size=16)
    for row in rows:
        total.update(json.dumps(_key(row)).encode())
    return total.hexdigest()


def _counts(rows: list[Row]) -> dict[str, object]:
    digests = Counter(d for row in rows for d in {digest(p.pixels) for p in row.pictures})
    return {
        "rows": len(rows), "images": len(digests), "sources": dict(Counter(row.source for row in rows)),
        "rows that share an image": sum(any(digests[digest(p.pixels)] > 1 for p in row.pictures) for row in rows),
        "turns": dict(sorted(Counter(len(row.turns) for row in rows).items())),
        "two images": sum(len(row.pictures) == 2 for row in rows), "no image": sum(not row.pictures for row in rows),
        "answers of one word": sum(len(t.answer.split()) == 1 for row in rows for t in row.turns),
        "answers of four words or more": sum(len(t.answer.split()) >= 4 for row in rows for t in row.turns),
    }  # fmt: skip


def _kinds(rows: list[Row], source: str) -> dict[str, int]:
    return {kind: sum(row.defect == kind and row.source == source for row in rows) for kind in KINDS}


def _key(row: Row) -> tuple[str, ...]:
    texts = [text for turn in row.turns for text in (turn.asked, turn.answer)]
    return row.source, *(digest(picture.pixels) for picture in row.pictures), *texts


def _store(archive: zipfile.ZipFile, names: dict[str, str], split: str, row: Row) -> list[str]:
    """The paths of the row's pictures in the zip, written at their first use."""
    paths = []
    for picture in row.pictures:
        key = digest(picture.pixels)
        if key not in names:
            names[key] = f"{split}/{len(names):06}.png"
            # A fixed date keeps the zip the same from build to build.
            archive.writestr(zipfile.ZipInfo(names[key], (2026, 1, 1, 0, 0, 0)), _png(picture.pixels))
        paths.append(names[key])
    return paths


def _png(pixels: Image) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
