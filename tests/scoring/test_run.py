"""Runs over data that is partly bad, models that fail, and folders that belong to another run."""

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from delta_attnmask import (
    ArtifactError,
    DataError,
    DeviceError,
    MaskSettings,
    SettingsError,
    UnsupportedModelError,
    cli,
)
from delta_attnmask.manifest import Shard
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.runs import RunFolder
from delta_attnmask.scoring.jobs import score_dataset
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer
from tests.families import FAMILIES

PLAN = ScoringPlan(MaskSettings.paper())
Line = dict[str, Any]


def row(
    question: str = "<image>\nWhat is it?", answer: Any = "A red cat.", image: Any = "good.png", **more: Any
) -> Line:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "same", **({"image": image} if image else {}), "conversations": turns, **more}


def bomb() -> bytes:
    """A PNG of a few bytes whose header says 100,000 x 100,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def write_images(root: Path) -> None:
    root.mkdir()
    Image.new("RGB", (64, 64), "red").save(root / "good.png")
    Image.new("RGB", (80, 40), "green").save(root / "wide.jpg")
    whole = (root / "good.png").read_bytes()
    (root / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "empty.png").write_bytes(b"")
    (root / "text.png").write_text("this is no image")
    (root / "bomb.png").write_bytes(bomb())
    (root / "folder.png").mkdir()
    (root.parent / "outside.png").write_bytes(whole)


BAD: list[tuple[Any, str]] = [
    (row(image="none.png"), "No such file"),
    (row(image="cut.png"), "can't be decoded"),
    (row(image="empty.png"), "is empty"),
    (row(image="text.png"), "expected JPEG, PNG"),
    (row(image="bomb.png"), "more than 50000000 pixels"),
    (row(image="folder.png"), "Is a directory"),
    (row(image="../outside.png"), "outside the image folder"),
    (row(image="/etc/passwd"), "outside the image folder"),
    (row(image="https://example.org/x.png"), "URLs are never fetched"),
    (row(image=5), "must be a path"),
    (row("What is it?"), "0 <image> for 1 image"),
    (row("<image><image>What is it?"), "2 <image> for 1 image"),
    (row(image=None), "1 <image> for 0 images"),
    (row(answer=None), "`value` must be a string, got"),
    (row(answer=["A cat."]), "`value` must be a string, got a list"),
    (row(answer="  "), "the answer is empty"),
    (row(conversations=[]), "empty conversation"),
    (row(conversations=[{"from": "human", "value": "<image>"}]), "no assistant turn"),
    (row(conversations="Hello"), "`conversations` must be a list"),
    (row(conversations=[5]), "turn 1 must be an object"),
    ({"id": 1}, "no `conversations`"),
    (5, "expected an object, got a number"),
    (None, "expected an object"),
    ([1, 2], "expected an object, got a list"),
    ("row", "expected an object, got a string"),
    (row(answer="invalid \udcff"), "invalid UTF-8"),
    (row(answer="cat <|user|> dog"), "special token '<|user|>'"),
    (row(answer="cat " * 2000), "more than the model's 1024"),
]
GOOD: list[Line] = [
    row(),
    row(image="wide.jpg"),
    row("What is one and one?", "Two.", image=None),
    {key: value for key, value in row().items() if key != "id"},
    row("What are these? <image> and <image>", "Two.", image=["good.png", "wide.jpg"]),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "images")
    return tmp_path


def dataset_of(folder: Path, rows: list[Any]) -> FileRows:
    text = json.dumps(rows, ensure_ascii=False, indent=1).encode("utf-8", "surrogateescape")
    (folder / "data.json").write_bytes(text)
    return FileRows(folder / "data.json", folder / "images")


def score(loaded: LoadedModel, dataset: FileRows, plan: ScoringPlan = PLAN, **options: Any) -> list[Line]:
    out = dataset.path.parent / options.pop("out", "run")
    lines: list[Line] = score_dataset(loaded, dataset, out, plan, **options).read_scores().to_pylist()
    assert [line["row"] for line in lines] == [*range(dataset.n_rows)]
    return lines


def statuses(lines: list[Line]) -> list[str]:
    return [line["status"] for line in lines]


def agree(lines: list[Line], others: list[Line]) -> bool:
    names = ("loss", "masked_loss", "delta")
    return all(abs(a[name] - b[name]) < 1e-5 for a, b in zip(lines, others, strict=True) for name in names)


# Bad rows


def test_every_bad_row_fails_with_its_reason_and_the_rest_is_scored(embedded_model: LoadedModel, folder: Path) -> None:
    rows: list[Any] = []
    for n, (bad, _) in enumerate(BAD):
        rows += [bad, GOOD[n % len(GOOD)]]
    lines = score(embedded_model, dataset_of(folder, rows), unit_rows=9)
    for (bad, reason), line in zip(BAD, lines[::2], strict=True):
        assert line["status"] == "failed", bad
        assert reason in line["reason"], f"{bad}: {line['reason']}"
        assert line["loss"] is line["masked_loss"] is line["delta"] is None
    for line in lines[1::2]:
        assert (line["status"], line["reason"]) == ("ok", "")
        assert line["delta"] == pytest.approx(line["masked_loss"] - line["loss"], abs=1e-6)
        assert line["n_answer_tokens"] > 1
    alone = score(embedded_model, dataset_of(folder, GOOD), out="good")
    assert agree([lines[1 + 2 * n] for n in range(len(GOOD))], alone)


def test_rows_without_an_image_fail_where_only_images_are_masked(embedded_model: LoadedModel, folder: Path) -> None:
    lines = score(
        embedded_model, dataset_of(folder, GOOD), ScoringPlan(MaskSettings(queries="all", tokens="image", block=-2))
    )
    assert statuses(lines) == ["ok", "ok", "failed", "ok", "ok"]
    assert lines[2]["reason"] == "the row has no token that may be masked with tokens='image', exclude='none'"
    assert (lines[2]["n_image_tokens"], lines[2]["loss"]) == (0, None)


@contextmanager
def nan_for(loaded: LoadedModel, word: str) -> Iterator[None]:
    """A model whose states are not finite in a conversation that has the word's first token."""
    marked = loaded.processor.tokenizer(word, add_special_tokens=False)["input_ids"][0]

    def spoil(_module: Any, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return output.masked_fill((args[0] == marked).any(-1)[:, None, None], torch.nan)

    handle = loaded.model.get_input_embeddings().register_forward_hook(spoil)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()


def test_a_loss_that_is_not_finite_is_a_failed_row(embedded_model: LoadedModel, folder: Path) -> None:
    rows = [row("zebra", "No.", image=None), *GOOD, row("<image>zebra?")]
    with nan_for(embedded_model, "zebra"):
        lines = score(embedded_model, dataset_of(folder, rows))  # the first is the shortest, which is checked first
    assert statuses(lines) == ["failed", *["ok"] * len(GOOD), "failed"]
    assert lines[0]["reason"] == lines[-1]["reason"] == "the loss is not finite (nan, masked nan)"


# Models that fail


@contextmanager
def failing(loaded: LoadedModel, when: Callable[[torch.Tensor], BaseException | None]) -> Iterator[None]:
    """A model that fails on those token ids `[batch, seq]` for which `when` gives an error."""

    def fail(_module: Any, args: tuple[Any, ...]) -> None:
        if (error := when(args[0])) is not None:
            raise error

    handle = loaded.model.get_input_embeddings().register_forward_pre_hook(fail)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("error", [RuntimeError("planned"), KeyError("planned"), TypeError("planned"), MemoryError()])
def test_a_row_that_the_model_refuses_takes_no_other_with_it(
    embedded_model: LoadedModel, folder: Path, error: Exception
) -> None:
    dataset = dataset_of(folder, [row(answer="A cat." + " cat" * n) for n in range(12)])
    expected = score(embedded_model, dataset, out="expected")
    longest = max(line["n_tokens"] for line in expected)
    with failing(embedded_model, lambda ids: error if ids.shape[1] == longest else None):
        lines = score(embedded_model, dataset)
    assert statuses(lines) == ["ok"] * 11 + ["failed"]
    assert lines[-1]["reason"].startswith("the model refuses the row: ")
    assert lines[-1]["n_tokens"] == longest
    assert agree(lines[:-1], expected[:-1])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")])
def test_out_of_memory_halves_the_batch_and_keeps_it_small(
    embedded_model: LoadedModel, folder: Path, error: Exception
) -> None:
    dataset = dataset_of(folder, [row(answer="A cat." + " cat" * (n % 5)) for n in range(24)])
    expected = score(embedded_model, dataset, out="expected")
    sizes: list[int] = []

    def when(ids: torch.Tensor) -> Exception | None:
        sizes.append(ids.numel())
        return error if ids.numel() > 400 else None

    with failing(embedded_model, when):
        lines = score(embedded_model, dataset, unit_rows=8)
    assert statuses(lines) == ["ok"] * 24
    assert agree(lines, expected)
    assert 1 <= sum(size > 400 for size in sizes) <= 2  # found out once; the units behind it fit at once


def test_a_limit_found_out_is_not_raised_by_a_larger_batch_that_fails_later(
    embedded_model: LoadedModel, folder: Path
) -> None:
    dataset = dataset_of(folder, [row(answer="A cat." + " cat" * (60 * (n < 8))) for n in range(16)])
    scorer = UnitScorer(embedded_model, dataset.load_image, ScoringPlan(MaskSettings.paper(), batch_tokens=1200))

    def when(ids: torch.Tensor) -> Exception | None:
        is_long = ids.shape[1] > 120
        return torch.OutOfMemoryError("full") if len(ids) > (1 if is_long else 4) else None

    with failing(embedded_model, when):
        scores = scorer.score_records(list(dataset))
    assert {score.status for score in scores} == {"ok"}
    longest, shortest = (scores[n].n_tokens or 0 for n in (0, -1))
    assert longest > 120
    assert (
        scorer.batches.batch_tokens <= longest < 4 * shortest
    )  # a failed batch of 8 short ones alone would leave 4 of them


def test_a_row_too_large_for_the_memory_fails_alone(embedded_model: LoadedModel, folder: Path) -> None:
    dataset = dataset_of(folder, [row(), row(answer="A cat." + " cat" * 200), row()])

    def when(ids: torch.Tensor) -> Exception | None:
        return torch.OutOfMemoryError("CUDA out of memory.\nOf the allocated") if ids.shape[1] > 200 else None

    with failing(embedded_model, when):
        lines = score(embedded_model, dataset)
    assert statuses(lines) == ["ok", "failed", "ok"]
    assert lines[1]["reason"] == "the model refuses the row: CUDA out of memory."


def test_a_model_that_refuses_every_row_ends_the_run_and_leaves_no_scores(
    embedded_model: LoadedModel, folder: Path
) -> None:
    dataset = dataset_of(folder, [5, row(), row()])
    refused = pytest.raises(UnsupportedModelError, match=r"no row of the first unit could be scored.* wrong shape")
    with failing(embedded_model, lambda ids: ValueError("wrong shape")), refused:
        score(embedded_model, dataset)
    assert not list((folder / "run").glob("scores/*"))
    assert statuses(score(embedded_model, dataset)) == ["failed", "ok", "ok"]


def test_a_row_for_which_memory_is_freed_in_time_is_scored(
    embedded_model: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that ran out with one row alone may be what the allocator keeps of the batches before."""
    is_full, steps = True, []

    def when(ids: torch.Tensor) -> Exception | None:
        if len(ids) == 4 or steps:  # the self-check comes before
            steps.append(len(ids))
            return torch.OutOfMemoryError("CUDA out of memory") if is_full else None
        return None

    def empty_cache() -> None:
        nonlocal is_full
        is_full = len(steps) < 3

    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)
    with failing(embedded_model, when):
        assert statuses(score(embedded_model, dataset_of(folder, [row()] * 4))) == ["ok"] * 4
    assert steps == [4, 2, 1, 1, 1, 2]


def test_a_start_in_front_of_rows_that_the_model_refuses_goes_on(embedded_model: LoadedModel, folder: Path) -> None:
    """A run that was killed between a good unit and one that the model refuses, or a shard that begins with it."""
    dataset = dataset_of(folder, [row(), row(), *[row(answer="A cat." + " cat" * 200)] * 2, row()])

    whole = partial(score, embedded_model, dataset, unit_rows=2)
    shard = partial(score_dataset, embedded_model, dataset, folder / "shards", PLAN, unit_rows=2)
    expected = ["ok", "ok", "failed", "failed", "ok"]
    with failing(embedded_model, lambda ids: ValueError("too long") if ids.shape[1] > 200 else None):
        assert statuses(whole()) == expected
        (folder / "run" / "complete.json").unlink()
        (folder / "run" / "scores" / "unit-00001.parquet").unlink()
        assert statuses(whole()) == expected
        assert [len(shard(shard=Shard(index, 3)).read_failed()) for index in range(3)] == [0, 2, 0]


def test_bad_rows_in_front_end_no_run_where_others_are_good(embedded_model: LoadedModel, folder: Path) -> None:
    dataset = dataset_of(folder, [5, 6, 7, *GOOD])
    assert statuses(score(embedded_model, dataset, unit_rows=2)) == ["failed"] * 3 + ["ok"] * len(GOOD)


def test_a_run_without_one_good_row_is_refused_and_leaves_no_run(embedded_model: LoadedModel, folder: Path) -> None:
    dataset = dataset_of(folder, [5, row(image="no.png"), row(image="none.png")])
    with pytest.raises(DataError, match=r"nor any of 3 from all over the data; .*image 'no.png': No such"):
        score(embedded_model, dataset, unit_rows=2)
    assert not (folder / "run" / "manifest.json").exists()
    assert statuses(score(embedded_model, dataset_of(folder, GOOD))) == ["ok"] * len(GOOD)


def test_a_device_that_fails_ends_the_run_and_no_row_is_blamed(embedded_model: LoadedModel, folder: Path) -> None:
    dataset = dataset_of(folder, [row(answer="A cat." + " cat" * (200 * (n in (2, 3)))) for n in range(6)])
    broken = torch.AcceleratorError("device-side assert")
    with (
        failing(embedded_model, lambda ids: broken if ids.shape[1] > 200 else None),
        pytest.raises(DeviceError, match="the device failed: device-side assert"),
    ):
        score(embedded_model, dataset, unit_rows=2)
    assert [path.name for path in (folder / "run" / "scores").iterdir()] == ["unit-00000.parquet"]
    assert statuses(score(embedded_model, dataset, unit_rows=2)) == ["ok"] * 6


def test_models_without_images_refuse_settings_that_mask_only_those(embedded_model: LoadedModel, folder: Path) -> None:
    text_only = LoadedModel("llama", FAMILIES["Llama"].build(), embedded_model.processor.tokenizer)
    with pytest.raises(SettingsError, match="tokens='image': this model takes no images"):
        score(text_only, dataset_of(folder, GOOD), ScoringPlan(MaskSettings(queries="all", tokens="image", block=-2)))
    with pytest.raises(SettingsError, match="block=9"):
        score(text_only, dataset_of(folder, GOOD), ScoringPlan(MaskSettings(block=9)))
    assert not (folder / "run").exists()


def test_the_line_about_the_model_names_the_attention_code_that_runs(embedded_model: LoadedModel, folder: Path) -> None:
    checks: list[str] = []
    score(embedded_model, dataset_of(folder, GOOD), replace(PLAN, attention="plain"), on_check=checks.append)
    assert "attention plain, " in checks[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU on which it may run")
def test_attention_code_that_this_device_lacks_ends_the_run_at_once(embedded_model: LoadedModel, folder: Path) -> None:
    with pytest.raises(SettingsError, match="attention='triton': needs an NVIDIA GPU"):
        score(embedded_model, dataset_of(folder, GOOD), replace(PLAN, attention="triton"))
    assert not list((folder / "run").glob("scores/*"))


# Folders and progress


def test_progress_and_going_on(embedded_model: LoadedModel, folder: Path) -> None:
    """Progress comes at the start, after each batch (here of one row) and after each unit."""
    dataset = dataset_of(folder, [*GOOD, 5, 6])
    seen: list[tuple[int, ...]] = []
    checks: list[str] = []
    watched = {"unit_rows": 3, "on_progress": lambda *numbers: seen.append(numbers), "on_check": checks.append}
    one_by_one = ScoringPlan(MaskSettings.paper(), batch_tokens=1)
    score(embedded_model, dataset, one_by_one, **watched)
    n_done, failed = [0, 1, 2, 3, 3, 4, 5, 6, 7], [0, 0, 0, 0, 0, 0, 0, 1, 2]
    assert seen == [(done, 7, n, 0) for done, n in zip(n_done, failed, strict=True)]
    assert len(checks) == 1
    assert "8 of 8 blocks recorded" in checks[0]
    assert "masking the output of block 6" in checks[0]
    (folder / "run" / "complete.json").unlink()
    (folder / "run" / "scores" / "unit-00001.parquet").unlink()
    seen.clear()
    score(embedded_model, dataset, one_by_one, **watched)
    assert seen == [(4, 7, 0, 4), (5, 7, 0, 4), (6, 7, 0, 4), (7, 7, 1, 4)]
    seen.clear()
    score(embedded_model, dataset, one_by_one, **watched)
    assert seen == [(7, 7, 0, 7)]  # nothing is left to do


def test_another_run_is_refused_and_what_differs_is_named(embedded_model: LoadedModel, folder: Path) -> None:
    dataset = dataset_of(folder, GOOD)
    again = partial(score_dataset, out=folder / "run", unit_rows=3)
    again(embedded_model, dataset, plan=PLAN)
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*.*")}

    def refused(
        difference: str, loaded: LoadedModel = embedded_model, data: FileRows = dataset, **options: Any
    ) -> None:
        with pytest.raises(ArtifactError, match=difference):
            again(loaded, data, **{"plan": PLAN, **options})

    refused(
        r"settings\.fraction: 0\.2 there, 0\.4 now",
        plan=ScoringPlan(MaskSettings(queries="all", fraction=0.4, block=-2)),
    )
    refused(r"settings\.sweep: None there, \[", plan=replace(PLAN, sweep=(MaskSettings.paper(),)))
    refused(r"unit_rows: 3 there, 4 now", unit_rows=4)
    refused(r"n_rows: 5 there, 2 now", data=FileRows(dataset.path, folder / "images", limit=2))
    weight = next(embedded_model.model.parameters())
    with torch.no_grad():
        weight += 1
        try:
            refused("model_fingerprint: ")
        finally:
            weight -= 1
    changed = json.loads(dataset.path.read_text())
    changed[0]["conversations"][1]["value"] = "A red cow."
    refused(r"input\.sha256: ", data=dataset_of(folder, changed))
    assert {path: path.read_bytes() for path in (folder / "run").rglob("*.*")} == before


def test_batches_need_at_least_one_token() -> None:
    with pytest.raises(SettingsError, match="batch_tokens=-1: expected at least 1"):
        ScoringPlan(MaskSettings.paper(), batch_tokens=-1)


def test_units_need_at_least_one_row(embedded_model: LoadedModel, folder: Path) -> None:
    with pytest.raises(SettingsError, match="unit_rows=0: expected at least 1"):
        score(embedded_model, dataset_of(folder, GOOD), unit_rows=0)


# Models that can't be used: one message, exit code 2


def call(capsys: pytest.CaptureFixture[str], model: Path | str, folder: Path) -> str:
    """The error that `score` prints."""
    files = ["--model", model, "--data", folder / "data.json", "--images", folder / "images", "--out", folder / "run"]
    with pytest.raises(SystemExit) as caught:
        cli.main(["score", *map(str, files), "--settings", "paper", "--device", "cpu"])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    *notes, message = [line for line in lines if line and not line.startswith(("Loading weights:", "data: "))]
    assert all(note.startswith("model: there is no folder ") for note in notes)
    assert message.startswith("delta-attnmask: ")
    assert not (folder / "run").exists()
    return message


def copied(embedded: Path, folder: Path, *without: str) -> Path:
    """The embedded model's folder without some of its files."""
    (folder / "model").mkdir()
    for path in (embedded / "model").iterdir():
        if path.name not in without:
            (folder / "model" / path.name).symlink_to(path)
    return folder / "model"


def test_a_missing_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset_of(folder, GOOD)
    assert "there is no such folder" in call(capsys, folder / "nowhere", folder)


def test_an_empty_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset_of(folder, GOOD)
    assert "config.json" in call(capsys, folder / "images", folder)


@pytest.mark.parametrize("content", ["{}", "no json", '{"model_type": "bert"}', '{"model_type": "clip"}', "[]"])
def test_a_folder_that_holds_no_such_model(folder: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    dataset_of(folder, GOOD)
    (folder / "images" / "config.json").write_text(content)
    assert "can't be loaded as an image-text or language model" in call(capsys, folder / "images", folder)


def test_a_model_without_weights(embedded: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset_of(folder, GOOD)
    assert "safetensors" in call(capsys, copied(embedded, folder, "model.safetensors"), folder)


def test_a_model_without_a_chat_template(embedded: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset_of(folder, GOOD)
    assert "no chat template" in call(capsys, copied(embedded, folder, "chat_template.jinja"), folder)


def test_a_model_whose_chat_template_fails(embedded: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset_of(folder, GOOD)
    model = copied(embedded, folder, "chat_template.jinja")
    (model / "chat_template.jinja").write_text("{{ raise_exception('only French') }}")
    with pytest.raises(SystemExit) as caught:
        cli.main(["score", "--model", str(model), "--data", str(folder / "data.json"), "--out", str(folder / "run")])
    assert caught.value.code == 2
    assert "only French" in capsys.readouterr().err


def test_a_name_that_only_the_hub_would_know(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset_of(folder, GOOD)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it tries for half a minute
    message = call(capsys, "nobody/no-such-model", folder)
    assert "nobody/no-such-model: there is no such folder here, and on the hub it can't be loaded" in message
    assert r"\n" not in message


def test_a_finished_run_can_be_opened(embedded_model: LoadedModel, folder: Path) -> None:
    score(embedded_model, dataset_of(folder, GOOD))
    run = RunFolder.open(folder / "run")
    assert run.is_complete
    assert run.manifest.settings["fraction"] == 0.2
