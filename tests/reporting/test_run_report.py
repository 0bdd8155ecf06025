"""The page about a run: what it says, that it stands alone, and that nothing of the data breaks it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup

from delta_attnmask.errors import ArtifactError
from delta_attnmask.manifest import Manifest
from delta_attnmask.modeling import load
from delta_attnmask.modeling.load import model_fingerprint
from delta_attnmask.reading.rows import Place
from delta_attnmask.reporting.gallery import Card, make_cards
from delta_attnmask.reporting.run_report import Request, make_report, open_data
from delta_attnmask.reporting.standing import find_standing
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.run_selection import candidates_of, select_from_run
from tests.cli.test_commands import call
from tests.reporting.runs import HOSTILE, write_calibration, write_data, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("report")
    deltas: list[float | None] = np.random.default_rng(0).normal(size=60).tolist()
    deltas[0], deltas[7] = 9.0, None  # the hostile row is kept and shown
    made = write_run(folder / "run", write_data(folder / "data", 60), deltas, reason=f"image '{HOSTILE}': bad")
    write_calibration(folder / "run")
    return made


@pytest.fixture(scope="module")
def html(run: RunFolder) -> str:
    return make_report(Request(run=run, selection=select_from_run(run, "20%")))


def request_for(run: RunFolder, keep: str = "20%", **options: object) -> Request:
    return Request(run=run, selection=select_from_run(run, keep), **options)


def cards_of(run: RunFolder, **options: object) -> list[Card]:
    request = request_for(run, **options)
    scores = run.read_scores(encoded=True)
    standing = find_standing(request.selection, candidates_of(request.selection, run, scores))
    return make_cards(scores, standing, open_data(request)[0], request.n_cards)


def test_it_answers_the_question_first(html):
    assert "Which 20 % of data.json is worth training on?" in html
    assert "The model tiny/model read 59 conversations. Of these 12 rows would be kept" in html
    tiles = re.findall(r"<dt>(\w[\w ]*)</dt><dd><strong>([^<]*)</strong>", html)
    assert tiles == [
        ("Scored", "59"),
        ("Would be kept", "12"),
        ("Sees", "1 of 2"),
        ("Training steps", "20\N{NO-BREAK SPACE}%"),
    ]
    assert "It doesn't see “wrong image”." in html
    assert "<code>select --by low_loss</code> is the simpler choice" in html


def test_a_change_of_the_mix_is_given_in_rows(tmp_path):
    deltas: list[float | None] = [float(row % 3 == 1) + row / 1000 for row in range(60)]  # one source wins
    run = write_run(tmp_path / "run", write_data(tmp_path / "data", 60), deltas)
    html = make_report(Request(run=run, selection=select_from_run(run, "20%", rule="top")))
    assert "about 8 of the 12 kept rows would have to be exchanged" in html
    assert "Of rows drawn at random it would be about 2." in html


def test_text_of_the_data_is_shown_as_text(html):
    assert "<script>document" not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;document.title" in html


def test_nothing_is_loaded_from_elsewhere(html):
    assert re.findall(r'(?:src|href|xlink:href)="(?!data:|#)([^"]*)"', html) == []
    assert re.findall(r"url\((?!#)[^)]*\)|@import", html) == []
    assert re.findall(r'\s(?:style|on\w+)="', html) == []  # the policy would refuse them


def test_every_chart_has_words_and_numbers_and_page_colours(html):
    figures = re.findall(r"<figure.*?</figure>", html, re.DOTALL)
    assert len(figures) == 2
    for figure in figures:
        assert re.search(r'<svg[^>]* role="img" aria-label="[^"]{20,}"', figure)

        assert "<figcaption>" in figure
        assert "<details>" in figure
        assert 'fill="#1d2126"' not in figure  # the ink of a light page
        assert "var(--ink)" in figure


def test_ids_and_references_of_the_drawings_agree(html):
    ids = re.findall(r'\sid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(#|<use[^>]*href="#)([^")]*)', html)) <= set(ids)


def test_each_card_says_why(run, html):
    cards = re.findall(r'<li class="card.*?</li>', html, re.DOTALL)
    statuses = [re.search(r'data-status="(\w+)"', card)[1] for card in cards]
    assert {"kept", "left", "failed"} == set(statuses)
    for card, status in zip(cards, statuses, strict=True):
        assert f"{status.capitalize()}: " in card
        assert (status == "failed") == ("rank" not in card)
    shown = next(card for card in cards if 'aria-label="Row 0, kept"' in card)
    assert 'src="data:image/webp;base64,' in shown
    assert "Kept: rank 1 of" in shown


def test_the_groups_take_turns(run):
    groups = [card.groups[0] for card in cards_of(run)]
    assert groups[:4] == ["top", "bottom", "cut", "random"]
    assert groups[-1] == "failed"


def test_an_inspection_stands_below_the_card_that_it_belongs_to(run):
    def inspect(row: int) -> Markup | None:
        return Markup("<p>looked here</p>") if row == 0 else None

    made = make_report(request_for(run, inspect=inspect, styles=("inspection.css",)))
    assert made.count("<p>looked here</p>") == 1


def test_a_written_selection_is_read(run, tmp_path, capsys):
    assert call("select", run.path, "--keep", "10%", "--out", tmp_path / "kept.json") == 0
    out = tmp_path / "new" / "r.html"
    assert call("report", run.path, "--selection", tmp_path / "kept.json", "-o", out) == 0
    assert f"Wrote {out}" in capsys.readouterr().out
    assert "Of these 6 rows are kept" in out.read_text()


def test_without_calibration_it_says_that_nobody_knows(run, tmp_path):
    bare = write_run(tmp_path / "run", write_data(tmp_path / "data", 12), [1.0, float("nan"), *range(10)])
    html = make_report(request_for(bare))
    assert "This score was not calibrated on this data" in html
    assert "<strong>?</strong>" in html
    assert "Which score sees which defect" not in html
    html = make_report(request_for(bare, calibration=run.path))
    assert "Which score sees which defect" in html


def test_a_calibration_of_another_score_says_nothing_of_this_one(run):
    selection = select_from_run(run, "20%", by="n_tokens")
    html = make_report(Request(run=run, selection=selection))
    assert "This score was not calibrated on this data" in html
    assert "These figures are of delta (queries all, tokens all, fraction 0.2, block -2), not of the score" in html
    assert "no score sees these defects" not in html


def test_what_is_no_page_is_never_overwritten(run, tmp_path, capsys):
    data = Path(run.manifest.data)
    before = data.read_bytes()
    assert call("report", run.path, "-o", data) == 2
    assert "expected a name that ends in .html" in capsys.readouterr().err
    assert data.read_bytes() == before
    out = tmp_path / "r.html"
    assert [call("report", run.path, "-o", out) for _ in range(2)] == [0, 0]


def test_all_rows_failed(tmp_path, capsys):
    run = write_run(
        tmp_path / "run", write_data(tmp_path / "data", 3), [None] * 3, reason="image '7.png': broken at 12"
    )
    assert call("report", run.path, "-o", tmp_path / "r.html") == 0
    html = (tmp_path / "r.html").read_text()
    assert "Why could nothing of data.json be scored?" in html
    assert "image …: broken at N" in html
    assert 'data-status="failed"' in html


def test_one_row_and_equal_scores(tmp_path):
    for n_rows in (1, 5):
        run = write_run(tmp_path / f"run{n_rows}", write_data(tmp_path / f"data{n_rows}", n_rows), [0.5] * n_rows)
        html = make_report(request_for(run))
        assert '<bdi>answer length</bdi></th><td class="number">–</td>' in html
        assert html.count("<article") == n_rows


def test_missing_images_and_data_are_said_and_the_rest_is_shown(tmp_path):
    run = write_run(tmp_path / "run", write_data(tmp_path / "data", 9), list(range(9)))
    folder = tmp_path / "data"
    (folder / "images" / "8.png").unlink()
    problems = {picture.problem for card in cards_of(run) for picture in card.pictures}
    assert problems == {"", "image '8.png': No such file or directory"}
    (folder / "images").rename(tmp_path / "pictures")
    assert "images isn't a directory" in open_data(request_for(run))[1]
    assert not any(picture.thumbnail for card in cards_of(run) for picture in card.pictures)
    moved = cards_of(run, place=Place(images=tmp_path / "pictures"))
    assert any(picture.thumbnail for card in moved for picture in card.pictures)
    (folder / "data.json").write_text((folder / "data.json").read_text().replace("word8", "word9"))
    assert "is not the file that was scored" in open_data(request_for(run))[1]
    assert not any(card.record for card in cards_of(run))
    (folder / "data.json").unlink()
    html = make_report(request_for(run))
    assert "doesn&#39;t exist" in html
    assert html.count("<article") == 9


def test_what_is_no_calibration_is_refused(run, tmp_path):
    (tmp_path / "calibration.json").write_text(json.dumps({"kinds": 3}))
    with pytest.raises(ArtifactError, match="no calibration"):
        make_report(request_for(run, calibration=tmp_path))
    with pytest.raises(ArtifactError, match="nowhere is missing"):
        make_report(request_for(run, calibration=tmp_path / "nowhere"))


def test_page_with_500_pictures_stays_below_ten_megabytes(tmp_path):
    run = write_run(tmp_path / "run", write_data(tmp_path / "data", 9, side=300), np.arange(9.0).tolist())
    html = make_report(request_for(run, n_cards=10_000))
    cards = re.findall(r'<li class="card.*?</li>', html, re.DOTALL)
    assert html.count('src="data:image/webp') == len(cards) == 9
    largest = max(map(len, cards))  # noise: nothing is harder to compress
    assert 500 * largest + len(html) - sum(map(len, cards)) < 10_000_000


def test_costs_say_where_scoring_pays(run):
    pace = run.path / "pace.json"
    pace.write_text(json.dumps({"n_rows": 60, "seconds": 30.0}))
    html = make_report(request_for(RunFolder.open(run.path), train_rate=0.5))
    pace.unlink()
    assert "Calibrating and scoring took 33 s; where training gets through 0.5 rows a second, that saves 62" in html
    assert "When scoring pays" in html


def test_images_outside_are_shown_only_where_that_is_allowed(tmp_path):
    data = write_data(tmp_path / "data", 10)
    (tmp_path / "data" / "images").rename(tmp_path / "elsewhere")
    (tmp_path / "data" / "images").mkdir()
    for image in (tmp_path / "elsewhere").iterdir():
        (tmp_path / "data" / "images" / image.name).symlink_to(image)
    run, out = write_run(tmp_path / "run", data, [float(row) for row in range(10)]), tmp_path / "r.html"
    assert call("report", run.path, "-o", out) == 0
    assert "outside the image folder" in out.read_text()
    assert call("report", run.path, "-o", out, "--allow-outside") == 0
    assert "outside the image folder" not in out.read_text()


def test_inspections_are_of_the_revision_that_scored(embedded_model, tmp_path, capsys, monkeypatch: pytest.MonkeyPatch):
    run, out = write_run(tmp_path / "run", write_data(tmp_path / "data", 6), list(range(6))), tmp_path / "r.html"
    settings = {**run.manifest.settings, "dtype": "float32"}
    fingerprint = model_fingerprint(embedded_model.model)
    manifest = replace(run.manifest, settings=settings, model_fingerprint=fingerprint, revision="v1")
    wanted = []
    monkeypatch.setattr(load, "load_model", lambda name, **options: wanted.append(options) or embedded_model)
    write_manifest(run.path, manifest)
    assert call("report", run.path, "--inspect", "1", "-o", out) == 0
    assert out.read_text().count('<section class="inspection"') == 1
    assert "WARNING" not in capsys.readouterr().err
    write_manifest(run.path, replace(manifest, model_fingerprint="f"))
    assert call("report", run.path, "--inspect", "1", "--revision", "v2", "-o", out) == 0
    assert "not the model that scored" in capsys.readouterr().err
    assert [options["revision"] for options in wanted] == ["v1", "v2"]


def write_manifest(run: Path, manifest: Manifest) -> None:
    (run / "manifest.json").write_text(manifest.to_json())


def test_the_worst_rows_are_listed_and_shown(run, tmp_path, capsys):
    out = tmp_path / "worst.html"
    assert call("worst", run.path, "-n", "5", "-o", out) == 0
    deltas = run.read_scores(["delta"])["delta"].to_pylist()
    lowest = sorted((delta, row) for row, delta in enumerate(deltas) if delta is not None)[:5]
    printed = capsys.readouterr().out
    assert [int(row) for row in re.findall(r"row: (\d+) \|", printed)] == [row for _, row in lowest]
    html = out.read_text()
    assert re.findall(r'aria-label="Row (\d+), lowest"', html) == [str(row) for _, row in lowest]
    assert html.count("<img ") == 5
    assert "Number 1 from below, of 59 rows by delta." in html
    assert call("worst", run.path, "-n", "3", "--by", "low_loss", "-o", out) == 0
    assert "Lowest low_loss" in capsys.readouterr().out
    assert call("worst", run.path, "-n", "501", "-o", out) == 2
    assert "500 rows at most" in capsys.readouterr().err
