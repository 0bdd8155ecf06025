"""A small scored data set, with texts that would do harm if they weren't escaped, and reviews of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from delta_attnmask.exporting.run_export import export_selection, open_scored
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.reviewing.answers import FORMAT
from delta_attnmask.reviewing.pairs import begin_review
from delta_attnmask.reviewing.protocol import QUESTIONS, Pair, Protocol, Side
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.run_selection import select_from_run
from delta_attnmask.selection import Selection
from tests.selecting.tables import make_scores, write_run

N_ROWS = 90
SOURCES = ("charts", "scenes", "<b>signs</b>")
HOSTILE = "<script>document.title = 'taken'</script>"
FAILED = 7
START = datetime(2026, 1, 1, tzinfo=UTC)


def write_rows(folder: Path) -> Path:
    """Rows of three sources with an image each, a long question and a hostile answer."""
    rows, note = [], PngInfo()
    note.add_text("comment", "secret")
    for row in range(N_ROWS):
        name = f"secret-{row}.png"
        colour = tuple(np.random.default_rng(row).integers(0, 256, 3).tolist())
        (folder / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 16) if row % 2 else (400, 300), colour).save(folder / "images" / name, pnginfo=note)
        question = f"<image>\nWhich of the many colours is it, {row}? {HOSTILE}"
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": f'</dd>Colour {row}" onload=x'}]
        rows.append({"id": f"secret-{row}", "source": SOURCES[row % 3], "image": name, "conversations": turns})
    (folder / "data.json").write_text(json.dumps(rows))
    return folder / "data.json"


def make_run(folder: Path, name: str = "run", seed: int = 0) -> RunFolder:
    data = folder / "data.json"
    deltas = np.random.default_rng(seed).normal(size=N_ROWS).tolist()
    questions = [f"which of the many colours is it, {row}?" for row in range(N_ROWS)]
    scores = make_scores(
        [None if row == FAILED else delta for row, delta in enumerate(deltas)],
        [SOURCES[row % 3] for row in range(N_ROWS)],
        questions=questions,
    )
    run = write_run(folder / name, scores)
    dataset = FileRows(data)
    manifest = replace(
        run.manifest,
        model_fingerprint=name,
        data=str(data),
        images=str(folder / "images"),
        input=dataset.fingerprint,
    )
    (folder / name / "manifest.json").write_text(manifest.to_json())
    counts = {"n_rows": N_ROWS, "n_units": run.n_units, "pace": {"n_rows": N_ROWS, "seconds": 9.0}}
    (folder / name / "complete.json").write_text(json.dumps(counts))  # no real run takes no time at all
    return RunFolder.open(folder / name)


def write_selection(run: RunFolder, out: Path, by: str = "delta") -> Selection:
    selection = select_from_run(run, "30%", by=by, rule="top")
    export_selection(selection, run, out)
    return selection


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data.json, images/, run/, another/ (a run of other scores), kept.json and rival.json."""
    folder = tmp_path_factory.mktemp("scored")
    write_rows(folder)
    run = make_run(folder)
    write_selection(run, folder / "kept.json")
    write_selection(run, folder / "rival.json", by="n_answer_tokens")
    write_selection(make_run(folder, "another", seed=1), folder / "another.json")
    return folder


@pytest.fixture
def run(scored: Path) -> RunFolder:
    return RunFolder.open(scored / "run")


@pytest.fixture
def dataset(run: RunFolder) -> FileRows:
    return open_scored(run)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "review"


@pytest.fixture
def protocol(scored: Path, run: RunFolder, folder: Path) -> Protocol:
    """A new review of 20 pairs, in `folder`."""
    return begin_review(run, folder, scored / "kept.json", n_pairs=20)


Choose = Callable[[Pair], str]


def other_side(side: Side) -> Side:
    return "second" if side == "first" else "first"


def answer_all(protocol: Protocol, rater: str = "Ann", choose: Choose = lambda pair: pair.target) -> dict[str, Any]:
    """What the page saves for a judge who answers everything, an answer every ten seconds."""
    asked = [(pair, question.name) for pair in protocol.pairs for question in QUESTIONS]
    times = [START + timedelta(seconds=10 * n) for n in range(len(asked))]
    answers = [
        {"pair": pair.token, "question": question, "answer": choose(pair), "at": time.isoformat()}
        for (pair, question), time in zip(asked, times, strict=True)
    ]
    return {"format": FORMAT, "review": protocol.id, "rater": rater, "answers": answers}


def save(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path
