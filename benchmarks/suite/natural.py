"""The defects that openclipart has by itself: rows of a pool, and a check, without anything planted.

    python -m benchmarks.suite.natural --out DIR --base BASE --rows 2000

Each public-domain drawing is a row that asks for its title, as a person gave it. Three things are known without labels:
titles that many drawings share say nothing of the drawing; a drawing that is there twice is a duplicate; one that is
filed under two topics has a wrong or an arbitrary one. The rows are scored with the product's commands, calibrated on
themselves, and the report tells how well each score sees them.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from embedded.assets import _clipart_files, _render_clipart
from embedded.build import digest
from embedded.fetch import PACKAGES, fetch_all
from embedded.sample import Picture, Question, Row, converse
from numpy.typing import NDArray
from PIL import Image as PILImage

from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.candidates import ranking_values
from delta_attnmask.selecting.run_selection import select_from_run
from delta_attnmask.statistics import auroc

SHARED = 5  # drawings of one title that make it one which tells nothing
ASKED = "What is the title of this drawing?"


@dataclass(frozen=True)
class Drawing:
    """A drawing, with its title and the topic of its folder."""

    pixels: NDArray[np.uint8]
    title: str
    topic: str


def main() -> None:
    options = read_options()
    drawings = read_drawings(options.rows)
    write_rows(options.out, drawings)
    run = score(options.out, options.base)
    print("\n".join(report(run, drawings)))


def read_drawings(n_rows: int, seen: Collection[str] = ()) -> list[Drawing]:
    """A sample of the public-domain drawings that render, duplicates and all, in an order of its own.

    seen: digests of pictures to leave out.
    """
    package = next(one for one in PACKAGES if one.name == "openclipart-svg")
    root = next(fetch_all(packages=[package])[package.name].rglob("openclipart/svg"))
    files = _clipart_files(root)
    random.Random(0).shuffle(files)
    drawings: list[Drawing] = []
    for path, topic in files:
        pixels, title = _render_clipart(path), read_title(path.read_text(errors="replace"))
        if pixels is not None and title and digest(pixels) not in seen:
            drawings.append(Drawing(pixels, title, topic))
        if len(drawings) == n_rows:
            break
    return drawings


def draw_titles(n_rows: int, seen: Collection[str]) -> list[Row]:
    """Rows of the source "titles", one a drawing; their defects are `title_shared` and `misfiled`.

    seen: digests of pictures to leave out.
    """
    drawings = read_drawings(n_rows, seen)
    is_shared, is_misfiled = known_defects(drawings)
    rows = []
    for drawing, shares, misfiled in zip(drawings, is_shared, is_misfiled, strict=True):
        question = Question("title", ASKED, lambda facts: facts, lambda rng: "")
        row = converse("titles", [Picture(drawing.pixels, drawing.title)], drawing.title, [question])
        row.defect = "title_shared" if shares else "misfiled" if misfiled else None
        rows.append(row)
    return rows


def known_defects(drawings: Sequence[Drawing]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which drawings share their title with many, and which ones are filed under two topics."""
    counts = Counter(drawing.title for drawing in drawings)
    topics = {pixels: {one.topic for one in group} for pixels, group in by_pixels(drawings).items()}
    is_shared = np.array([counts[drawing.title] >= SHARED for drawing in drawings])
    return is_shared, np.array([len(topics[drawing.pixels.tobytes()]) > 1 for drawing in drawings])


def read_title(svg: str) -> str:
    """The work's own title in lower case; not its agents'."""
    metadata = re.sub(r"<cc:Agent\b.*?</cc:Agent>", "", svg, flags=re.DOTALL)
    found = re.search(r"<dc:title>(.*?)</dc:title>", metadata, re.DOTALL)
    return " ".join(found.group(1).split()).lower() if found else ""


def write_rows(folder: Path, drawings: Sequence[Drawing]) -> None:
    """LLaVA JSON with one question for the title a drawing."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, drawing in enumerate(drawings):
        PILImage.fromarray(drawing.pixels).save(folder / "images" / f"{number:05}.png")
        asked = {"from": "human", "value": f"<image>\n{ASKED}"}
        answer = {"from": "gpt", "value": drawing.title}
        rows.append({"id": str(number), "image": f"{number:05}.png", "conversations": [asked, answer]})
    (folder / "rows.json").write_text(json.dumps(rows))


def score(folder: Path, base: Path) -> Path:
    """Calibrated and in the paper's plainest reading; the embeddings too."""
    data = ["--model", str(base), "--data", str(folder / "rows.json"), "--images", str(folder / "images")]
    for name, settings in {
        "calibrated": ["--settings", "auto", "--embeddings"],
        "paper": ["--settings", "paper"],
    }.items():
        command = ["score", *data, *settings, "--out", str(folder / name)]
        subprocess.run([sys.executable, "-m", "delta_attnmask", *command], check=True)
    return folder


def report(folder: Path, drawings: Sequence[Drawing]) -> list[str]:
    """A line for each of the three checks and each score."""
    run = RunFolder.open(folder / "calibrated")
    form = run.manifest.settings["form"]
    scores = {
        form: ranking_values(run.read_scores(), form),
        "low_loss": ranking_values(run.read_scores(), "low_loss"),
        "paper": ranking_values(RunFolder.open(folder / "paper").read_scores(), "delta"),
    }
    is_shared, is_misfiled = known_defects(drawings)
    lines = [
        f"{len(drawings)} drawings: {is_shared.sum()} with a title of {SHARED} or more, {is_misfiled.sum()} misfiled"
    ]
    for name, values in scores.items():
        lines.append(
            f"{name}: titles of one's own above shared ones {auroc(values[~is_shared], values[is_shared]):.3f}"
        )
    return [*lines, *duplicates_found(run, drawings)]


def by_pixels(drawings: Sequence[Drawing]) -> dict[bytes, list[Drawing]]:
    """The drawings of each picture."""
    groups: dict[bytes, list[Drawing]] = {}
    for drawing in drawings:
        groups.setdefault(drawing.pixels.tobytes(), []).append(drawing)
    return groups


def duplicates_found(run: RunFolder, drawings: Sequence[Drawing]) -> list[str]:
    """Of the pairs of equal pictures, how many `--near-duplicates` leaves but one of."""
    groups = by_pixels(drawings)
    n_copies = len(drawings) - len(groups)
    lines = [f"{n_copies} drawings are copies of another"]
    for cosine in (1.0, 0.999, 0.95):
        kept = select_from_run(run, "10%", near_duplicates=cosine)
        lines.append(f"--near-duplicates {cosine}: {kept.report['n_near_duplicates']} rows left out")
    return lines


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
