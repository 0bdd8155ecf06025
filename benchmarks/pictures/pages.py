"""The pages to photograph, made from a run of the demo by the project's own commands."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROWS = ("1231", "1193")  # a good answer in a sentence, and a wrong one
_STEPS = "40"  # of the tuning: enough to move attention, half a minute on a CPU


@dataclass(frozen=True)
class Pages:
    """Files to open in a browser."""

    report: Path
    inspector: Path
    attention: Path
    review: Path


def make_pages(demo: Path) -> Pages:
    """DEMO/pictures with all pages; the tuned model is kept from one call to the next, everything else is made again.

    demo: what `delta-attnmask demo --out` has made.
    """
    run, data, out, pages = demo / "run", demo / "data", demo / "pictures", pages_in(demo)
    out.mkdir(exist_ok=True)
    source = ["--data", data / "pool.json", "--images", data / "images"]
    kept, tuned = out / "kept.json", out / "tuned"
    shutil.rmtree(out / "review", ignore_errors=True)
    if not kept.exists():
        call("select", run, "--keep", "20%", "--out", kept)
    if not tuned.exists():
        trained = ["--data", kept, "--images", data / "images", "--max-steps", _STEPS, "--lr", "3e-4"]
        call("train", "--model", data / "model", *trained, "--out", tuned)
    call("report", run, "--selection", kept, "--inspect", "12", "-o", pages.report)
    call("inspect", "--model", data / "model", *source, "--row", *ROWS, "-o", pages.inspector)
    call("attention", data / "model", tuned, *source, "--rows", "120", "--samples", "3", "-o", pages.attention)
    call("review", run, "--selection", kept, "--out", pages.review.parent, "--pairs", "20")
    return pages


def pages_in(demo: Path) -> Pages:
    """Where the pages of a demo's folder are."""
    out = demo / "pictures"
    return Pages(out / "report.html", out / "inspector.html", out / "attention.html", out / "review" / "review.html")


def call(*arguments: object) -> None:
    """One command of delta-attnmask; CalledProcessError if it fails."""
    subprocess.run([sys.executable, "-m", "delta_attnmask", *map(str, arguments)], check=True)
