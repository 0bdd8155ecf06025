"""Comparing two models' attention: the statistics, the words, and the command."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from delta_attnmask.cli import main
from delta_attnmask.errors import DataError
from delta_attnmask.inspecting.comparison import MEASURES, RowAttention, compare, spread_rows
from delta_attnmask.inspecting.comparison_page import rows_of
from delta_attnmask.inspecting.inspector import Inspector
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.modeling.shares import MEASURES as MEASURED
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.settings import MaskSettings

N_ROWS, N_BLOCKS, N_TOKENS = 40, 3, 10


def model(shift: float = 0.0, seed: int = 0, **changes: Any) -> dict[int, RowAttention]:
    """Rows with random shares; `shift` is added to the share on the image, with some noise from row to row."""
    random = np.random.default_rng(1)
    noise = np.random.default_rng(seed + 2)
    rows = {}
    for row in range(N_ROWS):
        shares = random.uniform(0.2, 0.4, (N_BLOCKS, len(MEASURES)))
        shares[:, 1] += shift + noise.normal(0, 0.01)
        saliency = random.random(N_TOKENS)
        found = RowAttention(
            ids=np.arange(N_TOKENS),
            is_masked=saliency >= np.sort(saliency)[-2],
            shares=shares,
            loss=float(random.random()),
            masked_loss=float(random.random()) + 1,
            has_image=row % 4 > 0,
        )
        rows[row] = replace(found, **changes)
    return rows


def test_the_measures_are_those_that_are_measured() -> None:
    assert MEASURES == MEASURED


def test_a_model_against_itself_has_changed_nothing() -> None:
    found = compare(model(), model(), "relative_delta")
    assert [shift.measure for shift in found.shifts[::4]] == list(MEASURES), "all blocks, and three groups of them"
    assert not any(shift.is_clear for shift in found.shifts)
    assert found.tokens_shared.value == 1
    assert (found.n_kept, found.n_shared) == (8, 8)
    assert found.tokens_by_chance == pytest.approx(0.2)
    assert {row[-1] for row in rows_of(found)} == {"none clear"}


def test_a_change_is_clear_with_its_size_and_only_where_it_is() -> None:
    found = compare(model(), model(shift=-0.05, seed=5), "delta")
    clear = {shift.measure for shift in found.shifts if shift.is_clear}
    assert clear == {"image"}
    image, *groups = (shift for shift in found.shifts if shift.measure == "image")
    assert [(shift.first_block, shift.last_block) for shift in groups] == [(0, 0), (1, 1), (2, 2)]
    assert image.n_rows == 30, "rows without an image have no share on one"
    difference = image.difference
    assert difference.low < -0.05 < difference.high
    assert -0.055 < difference.value < -0.045
    title, blocks, *_, change = rows_of(found)[4]
    assert (title, blocks, change) == ("on the image, %", "all", "less")


def test_an_interval_is_as_wide_as_the_rows_differ() -> None:
    """1.96 standard errors, within what a bootstrap of 30 rows may be off."""
    base, tuned = model(), model(seed=5)
    overall = compare(base, tuned, "delta").shifts[4].difference
    rows = [row for row in range(N_ROWS) if row % 4]
    differences = [float((tuned[row].shares - base[row].shares)[:, 1].mean()) for row in rows]
    expected = 1.96 * np.std(differences) / len(rows) ** 0.5
    assert (overall.high - overall.low) / 2 == pytest.approx(expected, rel=0.15)


def test_models_that_can_not_be_compared_are_refused() -> None:
    with pytest.raises(DataError, match="different tokens"):
        compare(model(), model(ids=np.arange(1, N_TOKENS + 1)), "delta")
    with pytest.raises(DataError, match="has 3 blocks with attention, the tuned one 2"):
        compare(model(), model(shares=np.ones((2, len(MEASURES)))), "delta")
    with pytest.raises(DataError, match="no row"):
        compare(model(), {}, "delta")


def test_rows_are_spread_evenly() -> None:
    assert spread_rows(100, 5) == [0, 25, 50, 74, 99]
    assert spread_rows(3, 200) == [0, 1, 2]


def test_rows_are_measured_and_bad_ones_have_a_reason(tmp_path: Path, embedded_model: LoadedModel) -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "red"}]
    rows = [{"id": name, "image": f"{name}.png", "conversations": turns} for name in ("a", "missing")]
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    (tmp_path / "data.json").write_text(json.dumps(rows))
    dataset = FileRows(tmp_path / "data.json", tmp_path)
    done: list[tuple[int, ...]] = []
    inspector = Inspector(embedded_model, dataset, MaskSettings.paper())
    found = inspector.measure_rows([0, 1], lambda *numbers: done.append(numbers))
    assert (done, set(found)) == ([(1, 2, 0), (2, 2, 1)], {0})
    assert found[0].has_image
    assert found[0].shares.shape[1] == len(MEASURES)
    assert (found[0].shares[:, 1:4].sum(1) < 1).all(), "what is left goes to the answer"
    with pytest.raises(DataError, match="none of 1 rows"):
        inspector.measure_rows([1], lambda *numbers: None)


@pytest.fixture
def tuned(embedded_model: LoadedModel, tmp_path: Path) -> Path:
    """A copy whose first block attends more sharply."""
    embedded_model.model.save_pretrained(tmp_path / "tuned")
    embedded_model.processor.save_pretrained(tmp_path / "tuned")
    from safetensors.torch import load_file, save_file

    path = tmp_path / "tuned" / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if re.search(r"language_model.*layers\.0\.self_attn\.q_proj\.weight", name))
    save_file(weights | {name: weights[name] * 3}, path, metadata={"format": "pt"})
    return tmp_path / "tuned"


def test_the_command_finds_what_was_changed(embedded: Path, tuned: Path, tmp_path: Path) -> None:
    out, figures = tmp_path / "page.html", tmp_path / "figures.json"
    data = ["--data", str(embedded / "pool.json"), "--images", str(embedded / "images")]
    models = [str(embedded / "model"), str(tuned)]
    with pytest.raises(SystemExit) as stop:
        main(["attention", *models, *data, "-o", str(out), "--rows", "4", "--samples", "1", "--json", str(figures)])
    assert not stop.value.code
    found = json.loads(figures.read_text())
    _, early, *_ = (shift for shift in found["shifts"] if shift["measure"] == "entropy")
    assert early["first_block"] == 0
    assert early["difference"]["high"] < -0.05, "sharper attention has less entropy"
    html = out.read_text()
    assert html.count('class="all"') == len(MEASURES)
    assert "Base, attention" in html
    assert "Tuned, attention" in html
    assert not re.search(r'\sstyle="', html)
    assert all(address.startswith(("data:", "#")) for address in re.findall(r'(?:src|href)="([^"]*)"', html))


def test_the_command_wants_two_models(embedded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["attention", "a", "--data", str(embedded / "pool.json")])
    assert stop.value.code == 2
    assert "TUNED" in capsys.readouterr().err
