"""Draws the suite, plants defects in the pool, and writes it as LLaVA JSON with PNG files.

Deterministic: the same packages, options and Pillow version give the same fingerprint.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from embedded import assets
from embedded.build import digest, fingerprint, to_llava
from embedded.sample import Row
from embedded.sources.mixing import Split
from PIL import Image as PILImage

from .natural import draw_titles
from .packages import missing
from .planting import counts_by_source, plant
from .sources import SHIFT, SOURCES, Source

SEED = 20261124
SKEW = 0.72  # each source of the skewed variant has this share of the one before it


@dataclass(frozen=True)
class Sizes:
    """Rows of every source, and the share of the pool's rows that gets a defect.

    natural: a third as many drawings beside them, with the titles that people gave them and nothing planted.
    """

    pool: int = 1500
    dev: int = 100
    test: int = 250
    defects: float = 0.5
    skewed: bool = False
    natural: bool = False


def build(folder: Path, sizes: Sizes, seed: int = SEED) -> dict[str, object]:
    """Write pool.json, dev.json, test.json, shift.json, defects.json, images/ and suite.json, which is returned."""
    sources = available()
    pool = draw_split(seed, "pool", sources, pool_sizes(sizes, list(sources)))
    plant(random.Random(f"{seed}/defects"), pool, sizes.defects)
    splits = {
        "pool": pool,
        "dev": draw_split(seed, "dev", sources, dict.fromkeys(sources, sizes.dev)),
        "test": draw_split(seed, "test", sources, dict.fromkeys(sources, sizes.test)),
    }
    if not missing(SHIFT.clients) or has_assets():
        splits["shift"] = draw_split(seed, "test", {"fxemoji": SHIFT}, {"fxemoji": sizes.test})
    if sizes.natural:
        pool += draw_titles(len(pool) // 3, {digest(row.pictures[0].pixels) for row in splits["test"] + splits["dev"]})
        random.Random(f"{seed}/natural").shuffle(pool)
    pool_pictures = {digest(row.pictures[0].pixels) for row in pool}
    for name in ("dev", "test"):
        splits[name] = [row for row in splits[name] if digest(row.pictures[0].pixels) not in pool_pictures]
    for name, rows in splits.items():
        write_split(folder, name, rows)
    defects = {str(i): row.defect for i, row in enumerate(pool) if row.defect}
    (folder / "defects.json").write_text(json.dumps(defects, indent=0) + "\n")
    report: dict[str, object] = {
        "fingerprint": fingerprint(row for rows in splits.values() for row in rows),
        "rows": {name: len(rows) for name, rows in splits.items()},
        "defects": counts_by_source(pool),
        "missing": sorted(set(SOURCES) - set(sources)),
        "made_with": made_with(sizes, seed),
    }
    (folder / "suite.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def made_with(sizes: Sizes, seed: int = SEED) -> dict[str, object]:
    """What tells one suite from another, beside the packages."""
    asked = asdict(sizes) | {"seed": seed}
    return asked if sizes.natural else {name: value for name, value in asked.items() if name != "natural"}


def available() -> dict[str, Source]:
    """The sources whose package clients are here; the others are named on stderr."""
    found = {}
    for name, source in SOURCES.items():
        absent = missing(source.clients) if not (source.clients == SHIFT.clients and has_assets()) else []
        if absent:
            print(f"notice: source {name} is left out, it takes {' and '.join(absent)}", file=sys.stderr)
        else:
            found[name] = source
    if any(source.clients == SHIFT.clients for source in found.values()) and not has_assets():
        assets.main()
    return found


def has_assets() -> bool:
    """Whether the embedded data's drawings are rendered already."""
    return (assets.FOLDER / "assets.npz").exists()


def pool_sizes(sizes: Sizes, names: list[str]) -> dict[str, int]:
    """Rows of each source: equal, or falling by a constant share with the same sum."""
    weights = [SKEW**rank if sizes.skewed else 1.0 for rank in range(len(names))]
    total = sizes.pool * len(names)
    return {name: round(total * weight / sum(weights)) for name, weight in zip(names, weights, strict=True)}


def draw_split(seed: int, split: Split, sources: dict[str, Source], sizes: dict[str, int]) -> list[Row]:
    """Distinct clean rows of one picture and one question each, shuffled over the sources."""
    rows: list[Row] = []
    for name, source in sources.items():
        rows += draw_source(random.Random(f"{seed}/{split}/{name}"), name, source, split, sizes[name])
    return random.Random(f"{seed}/{split}").sample(rows, len(rows))


def draw_source(rng: random.Random, name: str, source: Source, split: Split, n: int) -> list[Row]:
    """Up to `n` rows; a source that runs dry gives fewer."""
    unique: dict[tuple[str, str], Row] = {}
    for _ in range(20):
        for row in source.samples(rng, n, split):
            if len(row.pictures) == 1 and len(unique) < n:
                row.turns = row.turns[:1]
                row.source = name
                unique.setdefault((digest(row.pictures[0].pixels), row.turns[0].asked), row)
        if len(unique) == n:
            break
    return list(unique.values())


def write_split(folder: Path, name: str, rows: list[Row]) -> None:
    """The rows as LLaVA JSON, one a line, and their pictures as PNG."""
    home = folder / "images" / name
    home.mkdir(parents=True, exist_ok=True)
    entries = []
    for i, row in enumerate(rows):
        PILImage.fromarray(row.pictures[0].pixels).save(home / f"{i:05}.png")
        entries.append(json.dumps(to_llava(row, f"{name}-{i:05}", [f"{name}/{i:05}.png"]), ensure_ascii=False))
    (folder / f"{name}.json").write_text("[\n" + ",\n".join(entries) + "\n]\n")
