"""Data, images and run folders behind URLs, tried on fsspec's file system in memory."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from delta_attnmask import cli
from delta_attnmask.errors import ArtifactError, DataError, RowError
from delta_attnmask.evaluating.predictions import EvaluationFolder
from delta_attnmask.locations import FileStore, as_path, as_url
from delta_attnmask.manifest import Manifest, Shard
from delta_attnmask.reading.images import ImageLimits, read_image_file
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.runs import RunFolder, merge_run
from delta_attnmask.scores import SampleScore
from tests.evaluating.folders import write_evaluation
from tests.test_shards import do_units
from tests.test_shards import manifest as manifest  # the fixture


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    """An empty file system in memory; what is fetched goes to a cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    yield memory
    memory.store.clear()


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("s3://bucket/run", "s3://bucket/run"),
        (Path("s3://bucket/run"), "s3://bucket/run"),
        ("gs://b/x.json", "gs://b/x.json"),
        ("file:///tmp/x", None),
        ("/tmp/x", None),
        ("runs/a:b", None),
        ("C:/x", None),
        ("http:", None),
    ],
)
def test_what_is_a_url(location: str | Path, url: str | None) -> None:
    assert as_url(location) == url


def test_file_urls_are_paths() -> None:
    assert as_path("file:///tmp/x") == as_path(Path("file:///tmp/x")) == as_path("/tmp/x") == Path("/tmp/x")


def files(store: fsspec.AbstractFileSystem, folder: str) -> list[str]:
    return sorted(path.removeprefix(f"/{folder}/") for path in store.find(f"/{folder}"))


def test_a_run_behind_a_url_is_the_run_of_a_folder(
    store: fsspec.AbstractFileSystem, manifest: Manifest, tmp_path: Path
) -> None:
    url = "memory://runs/a"
    with RunFolder.start(url, manifest) as run:
        do_units(run, 5)
        assert run.location == url
        assert {path.suffix for path in run.path.iterdir()} == {".json"}  # no table stays on this machine
    with RunFolder.start(url, manifest) as run:
        assert run.units_to_do() == [*range(5, 12)]
        joined = RunFolder.join(url, manifest)
        do_units(joined)
        assert run.units_to_do() == []
        run.mark_complete()
    own = [name for name in files(store, "runs/a") if "/" not in name]
    assert own == ["complete.json", "manifest.json", "pace.json"]
    with RunFolder.start(tmp_path / "run", manifest) as local:
        do_units(local)
    found = RunFolder.open(url)
    assert found.is_complete
    assert found.pace.n_rows > 0
    assert found.read_scores() == local.read_scores()
    assert found.read_side("sweep") == local.read_side("sweep")
    copy = found.path
    del found
    assert not copy.exists()


def test_another_run_behind_a_url_is_refused(store: fsspec.AbstractFileSystem, manifest: Manifest) -> None:
    url = "memory://runs/a"
    with RunFolder.start(url, manifest):
        pass
    other = replace(manifest, n_rows=7)
    with pytest.raises(ArtifactError, match="n_rows: 58 there, 7 now"), RunFolder.start(url, other):
        pass
    with pytest.raises(ArtifactError, match="n_rows"):
        RunFolder.join(url, other)
    store.pipe_file("/runs/b/thesis.tex", b"")
    with pytest.raises(ArtifactError, match=r"thesis\.tex"), RunFolder.start("memory://runs/b", manifest):
        pass
    with pytest.raises(ArtifactError, match="holds no run"):
        RunFolder.open("memory://runs/nothing")


def test_a_folder_with_other_files_takes_no_run(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    store.pipe_file("/runs/a/calibration.json", b"{}")
    for folder in ("memory://runs/a", "memory://runs/nothing", tmp_path / "nothing"):
        RunFolder.refuse_foreign(folder)
    store.pipe_file("/runs/a/thesis.tex", b"")
    with pytest.raises(ArtifactError, match=r"isn't empty and holds no run \(it has 'thesis.tex'\)"):
        RunFolder.refuse_foreign("memory://runs/a")


def test_shards_behind_a_url_are_merged(store: fsspec.AbstractFileSystem, manifest: Manifest) -> None:
    url = "memory://runs/a"
    for index in range(2):
        with RunFolder.start(url, manifest, Shard(index, 2)) as run:
            do_units(run)
    before = RunFolder.open(url).read_scores()
    assert len(files(store, "runs/a/scores")) == 12
    merge_run(url)
    assert files(store, "runs/a/scores") == ["merged-00000-00011.parquet"]
    found = RunFolder.open(url)
    assert found.is_complete
    assert found.read_scores() == before
    assert not [name for name in files(store, "runs/a") if "lock" in name]


def test_data_behind_a_url_is_fetched_once_until_it_changes(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    row = {"id": "1", "conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Yes."}]}
    store.pipe_file("/data/x.json", json.dumps([row]).encode())
    dataset = FileRows("memory://data/x.json")
    assert (dataset.n_rows, dataset.location) == (1, "memory://data/x.json")
    assert dataset.fingerprint == FileRows(Path("memory://data/x.json")).fingerprint
    store.pipe_file("/data/x.json", json.dumps([row, row]).encode())
    assert FileRows("memory://data/x.json").n_rows == 2
    with pytest.raises(DataError, match=r"memory://data/none\.json can't be reached: FileNotFoundError"):
        FileRows("memory://data/none.json")


def test_images_behind_a_url(store: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    store.pipe_file("/images/a/x.png", b"12345")
    store.pipe_file("/secret.png", b"1")
    root = FileStore("memory://images")
    assert read_image_file("a/x.png", root) == b"12345"
    for reference, reason in [
        ("a/none.png", "no such file in memory://images"),
        ("../secret.png", "outside the image folder"),
        ("a/../../secret.png", "outside the image folder"),
        ("/secret.png", "outside the image folder"),
        ("memory://secret.png", "URLs are never fetched"),
    ]:
        with pytest.raises(RowError, match=reason):
            read_image_file(reference, root)
    with pytest.raises(RowError, match="more than 4 bytes"):
        read_image_file("a/x.png", root, ImageLimits(max_bytes=4))

    def fail(*_: object, **__: object) -> bytes:
        raise TimeoutError("slow")

    monkeypatch.setattr(type(store), "cat_file", fail)
    with pytest.raises(OSError, match="TimeoutError: slow"):  # no fault of the row: the unit is tried again
        read_image_file("a/x.png", root)


@pytest.mark.parametrize("url", ["nosuch://a/b", "s3://a/b"])
def test_stores_without_a_plug_in(url: str, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(ArtifactError, match=r"Protocol not known|Install s3fs"):
        RunFolder.open(url)


def test_everything_behind_urls(
    embedded: Path, store: fsspec.AbstractFileSystem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put_file(str(embedded / "pool.json"), "/data/pool.json")
    for path in (embedded / "images").rglob("*"):
        if path.is_file():
            store.put_file(str(path), f"/data/images/{path.relative_to(embedded / 'images')}")

    def call(*arguments: object) -> object:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        return caught.value.code

    fixed = ("--model", embedded / "model", "--settings", "paper", "--dtype", "float32", "--device", "cpu")
    limit = ("--limit", 12, "--unit-rows", 4)
    remote = ("--data", "memory://data/pool.json", "--images", "memory://data/images", "--out", "memory://runs/a")
    local = ("--data", embedded / "pool.json", "--images", embedded / "images", "--out", tmp_path / "run")
    assert call("score", *fixed, *limit, *remote) == 0
    assert "select memory://runs/a --keep" in capsys.readouterr().out
    assert call("score", *fixed, *limit, *local) == 0
    assert RunFolder.open("memory://runs/a").read_scores() == RunFolder.open(tmp_path / "run").read_scores()
    assert call("merge", "memory://runs/a") is None
    outs = [tmp_path / "remote.json", tmp_path / "local.json"]
    for run, out in zip(("memory://runs/a", tmp_path / "run"), outs, strict=True):
        assert call("select", run, "--keep", "50%", "--out", out) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert not os.path.exists("memory:")  # noqa: PTH110 - nothing was taken for a path


def test_failed_rows_of_a_run_behind_a_url(store: fsspec.AbstractFileSystem, manifest: Manifest) -> None:
    with RunFolder.start("memory://runs/a", manifest) as run:
        do_units(run, 1)
        bad = [
            SampleScore(row=row, id="", key="k", source="", status="failed", reason="why", reason_code="template")
            for row in run.unit_rows(1)
        ]
        run.write_unit(1, bad)
        assert run.read_failed().to_pylist() == [
            {"row": row, "reason_code": "template", "reason": "why"} for row in run.unit_rows(1)
        ]
        run.withdraw()
    assert "manifest.json" in files(store, "runs/a")
    with RunFolder.start("memory://runs/b", manifest) as run:
        run.withdraw()
    assert files(store, "runs/b") == []


def test_an_evaluation_behind_a_url(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    local = write_evaluation(tmp_path / "eval", [[True], None], "ab")
    before = EvaluationFolder.open(local)
    with EvaluationFolder.start("memory://evals/a", before.manifest) as folder:
        folder.write_unit(0, before.read().to_pylist())
    found = EvaluationFolder.open("memory://evals/a")
    assert found.read() == before.read()
    assert files(store, "evals/a") == ["manifest.json", "predictions-00000.parquet"]
