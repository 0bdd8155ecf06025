"""Evaluations of the embedded model: whole, resumed, over bad rows, and with a model that fails."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig

from delta_attnmask import ArtifactError, SettingsError, UnsupportedModelError
from delta_attnmask.encoding.collate import collate
from delta_attnmask.encoding.encoder import make_encoder
from delta_attnmask.evaluating.evaluation import EvaluationPlan, evaluate_dataset
from delta_attnmask.evaluating.generating import encode_answers, generating_by
from delta_attnmask.evaluating.predictions import EvaluationFolder
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring.delta import loss_batch

Line = dict[str, Any]
OWN = EvaluationPlan(image_swap=False)


@pytest.fixture(scope="module")
def rows(embedded: Path) -> list[Line]:
    """Few rows of the test set: of all sources, some with several turns, one with two images."""
    test = json.loads((embedded / "test.json").read_text())
    two = next(row for row in test if isinstance(row.get("image"), list))
    text = [row for row in test if row["source"] == "text"][:1]
    return [*test[:7], two, *text]


@pytest.fixture(scope="module")
def dataset(embedded: Path, rows: list[Line], tmp_path_factory: pytest.TempPathFactory) -> FileRows:
    return dataset_of(tmp_path_factory.mktemp("data"), embedded, rows)


@pytest.fixture(scope="module")
def whole(embedded_model: LoadedModel, dataset: FileRows, tmp_path_factory: pytest.TempPathFactory) -> EvaluationFolder:
    """All rows, right and swapped, in one unit."""
    return evaluate_dataset(embedded_model, dataset, tmp_path_factory.mktemp("whole"))


def dataset_of(folder: Path, embedded: Path, rows: list[Any]) -> FileRows:
    (folder / "test.json").write_text(json.dumps(rows))
    return FileRows(folder / "test.json", embedded / "images")


def answers(folder: EvaluationFolder) -> list[Line]:
    lines: list[Line] = folder.read().to_pylist()
    return lines


def own_answers(folder: EvaluationFolder) -> list[Line]:
    return [line for line in answers(folder) if line["swapped_row"] is None]


def texts(folder: EvaluationFolder) -> list[Any]:
    return [(line["row"], line["turn"], line["swapped_row"], line["prediction"]) for line in answers(folder)]


def report_of(folder: EvaluationFolder) -> Line:
    found: Line = json.loads((folder.path / "evaluation.json").read_text())
    return found


def test_every_turn_is_answered_as_generate_does_and_measured(
    embedded_model: LoadedModel, dataset: FileRows, rows: list[Line], whole: EvaluationFolder
) -> None:
    lines = own_answers(whole)
    expected = [(row, turn) for row, line in enumerate(rows) for turn in range(len(line["conversations"]) // 2)]
    assert [(line["row"], line["turn"]) for line in lines] == expected
    assert [line["prediction"] for line in lines] == [
        by_chat_template(embedded_model, dataset, row, turn) for row, turn in expected
    ]
    for line, (row, turn) in zip(lines, expected, strict=True):
        reference = rows[row]["conversations"][2 * turn + 1]["value"]
        assert line["reference"] == reference
        assert line["exact"] == (line["prediction"] == reference)
        assert line["ended"]
        assert line["status"] == "ok"
    report = report_of(whole)
    assert report["pooled"]["exact"]["value"] == sum(line["exact"] for line in lines) / len(lines)
    assert 0 < report["pooled"]["exact"]["value"] < 1  # else the test would prove little


def by_chat_template(loaded: LoadedModel, dataset: FileRows, row: int, turn: int) -> str:
    """The answer that transformers alone gives to the prompt that the chat template writes."""
    record = next(iter(dataset.records(row, row + 1)))
    messages = [
        {
            "role": one.role,
            "content": [{"type": "image"} if part is None else {"type": "text", "text": part} for part in one.parts],
        }
        for one in record.turns[: 2 * turn + 1]
    ]
    prompt = loaded.processor.apply_chat_template(messages, add_generation_prompt=True)
    images = [dataset.load_image(reference) for reference in record.images]
    inputs = loaded.processor(text=[prompt], images=images or None, return_tensors="pt")
    given = loaded.model.generate(**inputs, do_sample=False, max_new_tokens=40)  # type: ignore[operator]
    text = loaded.processor.decode(given[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return str(text).strip()


def test_batches_units_and_workers_change_nothing(
    embedded_model: LoadedModel, dataset: FileRows, whole: EvaluationFolder, tmp_path: Path
) -> None:
    others = {
        "single": (EvaluationPlan(batch_tokens=1), 256),
        "units and worker processes": (EvaluationPlan(workers=2), 4),
    }
    for name, (plan, unit_rows) in others.items():
        other = evaluate_dataset(embedded_model, dataset, tmp_path / name, plan, unit_rows=unit_rows)
        assert texts(other) == texts(whole), name
        losses = [line["loss"] for line in answers(other)]
        assert losses == pytest.approx([line["loss"] for line in answers(whole)], abs=1e-5), name
        assert report_of(other)["pooled"]["exact"] == report_of(whole)["pooled"]["exact"]


def test_losses_are_those_of_loss_batch(
    embedded_model: LoadedModel, dataset: FileRows, whole: EvaluationFolder
) -> None:
    lines = own_answers(whole)
    encoder = make_encoder(embedded_model)
    for record in dataset.records(0, dataset.n_rows):
        images = [dataset.load_image(reference) for reference in record.images]
        batch = collate([encoder.encode(record, images)], encoder.pad_token_id)
        expected = float(loss_batch(embedded_model.model, batch.inputs, batch.labels)[0])
        mine = [line for line in lines if line["row"] == record.row]
        n_tokens = sum(line["n_reference_tokens"] for line in mine)
        assert sum(line["loss"] * line["n_reference_tokens"] for line in mine) / n_tokens == pytest.approx(
            expected, abs=1e-5
        )


def test_swapped_images_are_those_of_another_row_of_the_source(
    embedded_model: LoadedModel,
    dataset: FileRows,
    rows: list[Line],
    embedded: Path,
    whole: EvaluationFolder,
    tmp_path: Path,
) -> None:
    swapped = [line for line in answers(whole) if line["swapped_row"] is not None]
    assert swapped
    for line in swapped:
        own, other = rows[line["row"]], rows[line["swapped_row"]]
        assert own["source"] == other["source"]
        assert own["image"] != other["image"]
    first = swapped[0]
    moved = rows[first["row"]] | {"image": rows[first["swapped_row"]]["image"]}
    shown = evaluate_dataset(embedded_model, dataset_of(tmp_path, embedded, [moved]), tmp_path / "moved", OWN)
    assert answers(shown)[first["turn"]]["prediction"] == first["prediction"]
    assert report_of(shown)["pooled"]["swapped"] is None
    gain = report_of(whole)["pooled"]["swapped"]["exact_gain"]
    by_place = {(line["row"], line["turn"]): line for line in own_answers(whole)}
    pairs = [(by_place[line["row"], line["turn"]]["exact"], line["exact"]) for line in swapped]
    assert gain["value"] == pytest.approx(sum(own - other for own, other in pairs) / len(pairs))


def test_images_of_later_turns_are_not_shown_before(
    embedded_model: LoadedModel, dataset: FileRows, rows: list[Line], tmp_path: Path
) -> None:
    paths = [row["image"] for row in rows if isinstance(row.get("image"), str)][:2]
    turns = [("human", "<image>\nWhat is it?"), ("gpt", "x"), ("human", "<image>\nAnd this?"), ("gpt", "y")]
    row = {"image": paths, "conversations": [{"from": who, "value": text} for who, text in turns]}
    data = dataset_of(tmp_path, Path(str(dataset.images_root)).parent, [row])
    record = next(iter(data.records(0, 1)))
    images = [data.load_image(reference) for reference in record.images]
    first, second = encode_answers(make_encoder(embedded_model), record, images)
    assert len(first.sample.inputs["pixel_values"]) == 1
    assert len(second.sample.inputs["pixel_values"]) == 2
    reference = second.sample.labels[0, second.start : second.stop].tolist()
    assert reference == [*make_ids(embedded_model, "y"), make_ids(embedded_model, "<|end|>")[0]]
    lines = answers(evaluate_dataset(embedded_model, data, tmp_path / "eval", OWN))
    assert [line["prediction"] for line in lines] == [
        by_chat_template_of(embedded_model, data, turn) for turn in (0, 1)
    ]


def make_ids(loaded: LoadedModel, text: str) -> list[int]:
    ids: list[int] = loaded.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def by_chat_template_of(loaded: LoadedModel, data: FileRows, turn: int) -> str:
    record = next(iter(data.records(0, 1)))
    shown = data_with_images(data, turn + 1)
    assert len(record.images) == 2
    return by_chat_template(loaded, shown, 0, turn)


def data_with_images(data: FileRows, n_images: int) -> FileRows:
    """The same conversation, cut after its turn of that number, with only so many images."""
    row = json.loads(data.path.read_text())[0]
    cut = row | {"image": row["image"][:n_images], "conversations": row["conversations"][: 2 * n_images]}
    path = data.path.with_name(f"cut-{n_images}.json")
    path.write_text(json.dumps([cut]))
    return FileRows(path, data.images_root)


def test_bad_rows_have_a_line_with_the_reason(
    embedded_model: LoadedModel, embedded: Path, rows: list[Line], tmp_path: Path
) -> None:
    bad = [{"id": "no turns"}, rows[0] | {"image": "none.png"}, 5, rows[1]]
    folder = evaluate_dataset(embedded_model, dataset_of(tmp_path, embedded, [rows[0], *bad]), tmp_path / "eval", OWN)
    lines = answers(folder)
    failed = {line["row"]: line["reason"] for line in lines if line["status"] == "failed"}
    assert sorted(failed) == [1, 2, 3]
    assert "No such file" in failed[2]
    assert all(line["prediction"] is None for line in lines if line["status"] == "failed")
    report = report_of(folder)
    assert report["n_failed_rows"] == 3
    assert sum(report["reasons"].values()) == 3
    assert report["pooled"]["n_rows"] == 2


def test_goes_on_where_it_stopped_and_gives_the_same(
    embedded_model: LoadedModel,
    dataset: FileRows,
    whole: EvaluationFolder,
    tmp_path: Path,
) -> None:
    progress: list[int] = []

    def note(n_done: int, n_rows: int, n_failed: int = 0, n_before: int = 0) -> None:
        progress.append(n_done)

    def stop(*numbers: int) -> None:
        note(*numbers)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_dataset(embedded_model, dataset, tmp_path / "eval", unit_rows=4, on_progress=stop)
    assert not (tmp_path / "eval" / "evaluation.json").exists()
    with pytest.raises(ArtifactError, match="incomplete"):
        EvaluationFolder.open(tmp_path / "eval").read()
    folder = evaluate_dataset(embedded_model, dataset, tmp_path / "eval", unit_rows=4, on_progress=note)
    assert progress == [4, 8, 9]
    assert texts(folder) == texts(whole)
    again = evaluate_dataset(embedded_model, dataset, tmp_path / "eval", unit_rows=4, on_progress=note)
    assert texts(again) == texts(whole)
    assert len(progress) == 3  # nothing was left to do


def test_another_evaluation_is_refused_and_what_differs_is_named(
    embedded_model: LoadedModel, embedded: Path, rows: list[Line], tmp_path: Path
) -> None:
    data = dataset_of(tmp_path, embedded, rows[:2])
    evaluate_dataset(embedded_model, data, tmp_path / "eval", OWN)
    for plan, difference in [
        (replace(OWN, image_swap=True), "settings.image_swap: False there, True now"),
        (replace(OWN, max_new_tokens=7), "settings.max_new_tokens"),
    ]:
        with pytest.raises(ArtifactError, match=difference):
            evaluate_dataset(embedded_model, data, tmp_path / "eval", plan)
    with pytest.raises(ArtifactError, match=r"input\.sha256"):
        evaluate_dataset(embedded_model, dataset_of(tmp_path, embedded, rows[1:3]), tmp_path / "eval", OWN)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(ArtifactError, match=r"letter\.txt"):
        evaluate_dataset(embedded_model, data, tmp_path / "full", OWN)


def test_numbers_out_of_range_are_refused(embedded_model: LoadedModel, dataset: FileRows, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"batch_tokens=0.*max_new_tokens=0"):
        EvaluationPlan(batch_tokens=0, max_new_tokens=0)
    with pytest.raises(SettingsError, match="seed=-1"):
        EvaluationPlan(seed=-1)
    with pytest.raises(SettingsError, match="unit_rows=0"):
        evaluate_dataset(embedded_model, dataset, tmp_path / "eval", unit_rows=0)


def test_answers_that_run_into_the_limit_have_not_ended(
    embedded_model: LoadedModel, dataset: FileRows, whole: EvaluationFolder, tmp_path: Path
) -> None:
    limited = answers(evaluate_dataset(embedded_model, dataset, tmp_path / "two", replace(OWN, max_new_tokens=2)))
    free = own_answers(whole)
    assert all(line["n_new_tokens"] <= 2 for line in limited)
    assert [line["ended"] for line in limited] == [line["n_new_tokens"] <= 2 for line in free]
    assert not all(line["ended"] for line in limited)


@contextmanager
def failing(
    loaded: LoadedModel, error: Exception, when: Callable[[Tensor], bool] = lambda ids: True
) -> Iterator[list[int]]:
    """The model raises an error where `when` holds of a forward's token ids; gives the sizes of the batches."""
    sizes: list[int] = []

    def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs["input_ids"]
        sizes.append(len(ids))
        if when(ids):
            raise error

    hook = loaded.model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield sizes
    finally:
        hook.remove()


def test_out_of_memory_halves_the_batch_and_loses_nothing(
    embedded_model: LoadedModel, dataset: FileRows, whole: EvaluationFolder, tmp_path: Path
) -> None:
    expected = [place for place in texts(whole) if place[2] is None]
    with failing(embedded_model, torch.OutOfMemoryError("no more"), lambda ids: len(ids) > 2) as sizes:
        folder = evaluate_dataset(embedded_model, dataset, tmp_path / "eval", OWN)
    assert texts(folder) == expected
    assert max(sizes) > 2 >= min(sizes)


def test_a_row_that_the_model_refuses_takes_no_other_with_it(
    embedded_model: LoadedModel, embedded: Path, rows: list[Line], tmp_path: Path
) -> None:
    turns = [{"from": "human", "value": "Is it odd?"}, {"from": "gpt", "value": "yes"}]
    data = dataset_of(tmp_path, embedded, [*rows[:2], {"conversations": turns}, *rows[3:]])

    def is_odd(ids: Tensor) -> bool:
        return any("odd?" in text for text in embedded_model.processor.batch_decode(ids))

    with failing(embedded_model, RuntimeError("too odd\nmore"), is_odd):
        folder = evaluate_dataset(embedded_model, data, tmp_path / "eval", OWN)
    failed = [line for line in answers(folder) if line["status"] == "failed"]
    assert {line["row"] for line in failed} == {2}
    assert {line["reason"] for line in failed} == {"the model refuses the row: too odd"}


def test_a_model_that_refuses_every_row_ends_the_evaluation(
    embedded_model: LoadedModel, dataset: FileRows, tmp_path: Path
) -> None:
    with (
        failing(embedded_model, RuntimeError("never")),
        pytest.raises(UnsupportedModelError, match="no row of the first unit"),
    ):
        evaluate_dataset(embedded_model, dataset, tmp_path / "eval", OWN)
    assert not list((tmp_path / "eval").glob("*.parquet"))


def test_a_start_in_front_of_rows_that_the_model_refuses_goes_on(
    embedded_model: LoadedModel, dataset: FileRows, tmp_path: Path
) -> None:
    folder = evaluate_dataset(embedded_model, dataset, tmp_path / "eval", OWN, unit_rows=8)
    folder.unit_path(1).unlink()
    with failing(embedded_model, RuntimeError("never")):
        evaluate_dataset(embedded_model, dataset, tmp_path / "eval", OWN, unit_rows=8)
    assert {line["row"] for line in answers(folder) if line["status"] == "failed"} == {8}


def test_the_model_keeps_its_own_generation_config(embedded_model: LoadedModel) -> None:
    model: Any = embedded_model.model
    before = model.generation_config
    with pytest.raises(ValueError, match="odd"), generating_by(model, GenerationConfig(max_new_tokens=1)):
        raise ValueError("odd")
    assert model.generation_config is before
