"""What suits the device, results read a batch late, and what the check of a run's model gives up, with a warning."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from delta_attnmask import MaskSettings, SettingsError, UnsupportedModelError
from delta_attnmask.encoding.encoder import make_encoder
from delta_attnmask.encoding.row_encoder import RowEncoder
from delta_attnmask.errors import RowError
from delta_attnmask.modeling.load import LoadedModel, compile_blocks
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring import checking
from delta_attnmask.scoring.pipeline import Room, begin_copy, choose_room, is_fatal
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer

GIB = 1 << 30
PLAN = ScoringPlan(MaskSettings.paper(), batch_tokens=400)


@pytest.fixture
def dataset(embedded: Path) -> FileRows:
    return FileRows(embedded / "pool.json", embedded / "images", limit=12)


@pytest.mark.parametrize(
    ("free_bytes", "expected"),
    [
        (None, Room(8192, GIB // 4)),
        (0, Room(8192, 2 * GIB)),
        (20 * GIB, Room(8192, 2 * GIB)),
        (35 * GIB, Room(16384, 2 * GIB)),
        (63 * GIB, Room(16384, 2 * GIB)),
        (74 * GIB, Room(32768, 4 * GIB)),
    ],
)
def test_batches_and_what_waits_are_as_large_as_memory_allows(free_bytes: int | None, expected: Room) -> None:
    assert choose_room(free_bytes) == expected


def test_a_scorer_takes_what_it_is_given_or_what_suits_the_device(
    embedded_model: LoadedModel, dataset: FileRows
) -> None:
    sizes = [
        UnitScorer(embedded_model, dataset.load_image, replace(PLAN, batch_tokens=tokens)).batches.batch_tokens
        for tokens in (77, None)
    ]
    assert sizes == [77, 8192]


def test_copies_are_begun_at_once_and_keep_their_values() -> None:
    values = torch.arange(3.0)
    wait = begin_copy([values, values.bool()])
    assert [copy.tolist() for copy in wait()] == [[0, 1, 2], [False, True, True]]
    assert begin_copy([])() == []


def test_faults_of_the_device_are_fatal_but_for_memory_that_ran_out() -> None:
    full: Any = torch.AcceleratorError("CUDA error: out of memory")
    full.error_code = 2
    fatal = [SettingsError("x"), UnsupportedModelError("x"), torch.AcceleratorError("device-side assert")]
    assert [is_fatal(error) for error in (*fatal, full, ValueError("x"))] == [True] * 3 + [False] * 2


def test_the_results_of_a_batch_are_read_when_the_next_one_has_run(
    embedded_model: LoadedModel, dataset: FileRows
) -> None:
    scorer = UnitScorer(embedded_model, dataset.load_image, PLAN)
    events: list[str] = []
    score, scorer.on_rows = scorer._score, lambda n_rows: events.append("read")

    def noted(*given: Any) -> None:
        events.append("run")
        score(*given)

    scorer._score = noted  # type: ignore[method-assign]
    scores = scorer.score_records(list(dataset))
    n_batches = events.count("run")
    assert n_batches > 2
    assert events == ["run", *["run", "read"] * (n_batches - 1), "read"]
    assert [one.status for one in scores] == ["ok"] * 12


def test_pixels_are_encoded_in_the_precision_of_the_model(embedded_model: LoadedModel, dataset: FileRows) -> None:
    class Half(LoadedModel):
        dtype = torch.bfloat16

    half = Half(embedded_model.name, embedded_model.model, embedded_model.processor)
    found = [RowEncoder(make_encoder(one), dataset.load_image)(list(dataset)[:3]) for one in (embedded_model, half)]
    for whole, small in zip(*found, strict=True):
        assert not isinstance(whole, RowError)
        assert not isinstance(small, RowError)
        inputs, others = whole[""].inputs, small[""].inputs
        assert torch.equal(inputs["pixel_values"].bfloat16(), others["pixel_values"])
        assert others["pixel_values"].dtype == torch.bfloat16
        assert torch.equal(inputs["input_ids"], others["input_ids"])


@contextmanager
def changed(loaded: LoadedModel, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """A model with other embeddings of its tokens."""
    embedding = loaded.model.get_input_embeddings()  # type: ignore[operator]
    handle = embedding.register_forward_hook(lambda _module, _args, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def test_a_model_whose_samples_change_each_other_runs_one_by_one_with_a_warning(
    embedded_model: LoadedModel, dataset: FileRows, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = UnitScorer(embedded_model, dataset.load_image, PLAN)
    with changed(embedded_model, lambda states: states + 0.1 * len(states)):
        scorer.score_records(list(dataset))
    assert scorer.batches.batch_tokens == 1
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert "12 forwards instead of " in warning


def compiled_by(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "compile_blocks", partial(compile_blocks, backend=backend))


def broken(*given: Any) -> Any:
    raise RuntimeError("no compiler")


@pytest.mark.parametrize("backend", ["eager", broken])
def test_blocks_are_compiled_for_a_run_or_given_up_with_a_warning(
    backend: Any,
    embedded_model: LoadedModel,
    dataset: FileRows,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compiled_by(backend, monkeypatch)
    records = list(dataset)[:4]
    expected = UnitScorer(embedded_model, dataset.load_image, PLAN).score_records(records)
    scorer = UnitScorer(embedded_model, dataset.load_image, replace(PLAN, compile=True))
    found = scorer.score_records(records)
    for one, other in zip(found, expected, strict=True):
        assert one.delta == pytest.approx(other.delta, abs=1e-5)
    blocks = embedded_model.model.model.language_model.layers  # type: ignore[union-attr]
    assert ("forward" in vars(blocks[0])) == (backend == "eager")
    assert ("warning: compiled blocks fail (" in capsys.readouterr().err) == (backend is broken)
    scorer.close()
    assert "forward" not in vars(blocks[0])
