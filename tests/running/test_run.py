"""`run` from data to a proof on embedded rows: what it writes, what it skips, what it refuses, and killed anywhere."""

import json
import os
import re
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import yaml

from delta_attnmask import ArtifactError, DeltaAttnMask
from delta_attnmask.calibration import Verdict
from delta_attnmask.cli import app, main
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.running.plan import STAGES, ModelSource, RunPlan
from delta_attnmask.running.run import Run
from delta_attnmask.settings import MaskSettings
from tests.exporting.test_splitting import images_of
from tests.test_kill import Moment, begin_call, finish, killed_at

FEW = {"limit": 30, "test": "6", "prove": ("random",), "seeds": 1, "max-steps": 2, "batch-size": 2, "to": "trl"}
BATCH_TOKENS = 1024  # several batches of few rows
PARTS = ("test.json", "pool.json", "kept.json", "random.json")
N_POOL, N_KEPT = 24, 5


def flags(home: Path, out: Path, **options: Any) -> list[str]:
    own = {"model": home / "model", "data": home / "pool.json", "images": home / "images", "out": out, "device": "cpu"}
    own |= {"batch-tokens": BATCH_TOKENS}
    words = []
    for name, value in (own | FEW | options).items():
        if value is not None:
            words += [f"--{name}", *([] if value is True else value if isinstance(value, tuple) else [str(value)])]
    return ["run", *words]


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def results(out: Path) -> dict[str, Any]:
    """What must be the same however often a run was killed."""
    path = out / "proof.json"
    proof = json.loads(path.read_text()) if path.exists() else {}
    return {name: (out / name).read_text() for name in PARTS} | {name: proof.get(name) for name in ("models", "beats")}


@pytest.fixture(scope="module")
def whole(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to the proof, uncalibrated since it has too few rows."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert call(*flags(embedded, out, json=out.parent / "findings.json")) == 0
    return out


def test_the_parts_fit_together(whole: Path) -> None:
    test, pool, kept, drawn = (
        json.loads((whole / f"{n}.json").read_text()) for n in ("test", "pool", "kept", "random")
    )
    assert (len(pool), len(kept), len(drawn)) == (N_POOL, N_KEPT, N_KEPT)
    assert images_of(test).isdisjoint(images_of(pool))
    assert all(row in pool for row in [*kept, *drawn])
    assert Counter(row["source"] for row in kept) == Counter(row["source"] for row in drawn)  # the quotas
    exported = json.loads((whole / "trl" / "export.json").read_text())
    assert all(Path(one["file"]).exists() and one["n_written"] == N_KEPT for one in exported.values())
    found = json.loads((whole.parent / "findings.json").read_text())
    assert found["verdict"] == Verdict.TOO_FEW
    assert set(found["proof"]["against"]) == {"random", "untouched"}
    assert found["proof"]["n_test_rows"] == 6


def test_the_report_opens_with_verdict_and_proof(whole: Path) -> None:
    page = (whole / "report.html").read_text()
    opening = re.search(r'<div class="answer">(.*?)</div>', page, re.DOTALL)
    assert opening is not None
    assert "too few rows to tell" in opening[1]
    assert len(re.findall("Proof: the selected 20 % (?:beats|doesn.{1,5}t beat)", opening[1])) == 2


def test_what_is_done_is_skipped_and_a_no_is_an_exit_code_only_if_strict(
    embedded: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.json")}
    assert call(*flags(embedded, whole)) == 0
    printed = capsys.readouterr().out
    assert printed.count("done already") == len(STAGES)
    assert "verdict: too few rows to tell" in printed
    assert "proof: the selected 20 % doesn't beat as many random rows" in printed  # one step teaches nothing
    assert call(*flags(embedded, whole, strict=True)) == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_record_repeats_the_run_and_has_the_flags_names(embedded: Path, whole: Path, tmp_path: Path) -> None:
    record = yaml.safe_load((whole / "run.yaml").read_text())
    assert record["test"] == "6"
    assert record["prove"] == ["random"]
    assert {"max-steps", "batch-size", "batch-tokens", "allow-outside"} < record.keys()
    again = tmp_path / "again"
    assert call("run", "--config", str(whole / "run.yaml"), "--out", str(again), "--until", "select") == 0
    for name in PARTS:
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    assert not (again / "report.html").exists()
    repeated = yaml.safe_load((again / "run.yaml").read_text())
    assert {name for name in record if repeated[name] != record[name]} == {"out"}
    assert repeated.keys() - record.keys() == {"until"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("imges: x", "Did you mean --images"),
        ("keeep: 20%", "Did you mean --keep"),
        ("- keep", "expected names of flags"),
        ("prove: yes", "prove"),
        ("keep: [", "run.yaml"),
    ],
)
def test_a_wrong_config_is_refused(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (tmp_path / "run.yaml").write_text(text)
    assert call(*flags(embedded, tmp_path / "out", config=tmp_path / "run.yaml", prove=None, keep=None)) != 0
    printed = capsys.readouterr()
    assert said in " ".join((printed.out + printed.err).replace("│", " ").split())
    assert "Traceback" not in printed.err
    assert not (tmp_path / "out").exists()


def test_flags_come_before_the_config(embedded: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("keep: 50%\nlimit: 12\nto: llava\nlora: false\n")
    out = tmp_path / "out"
    few = flags(embedded, out, config=tmp_path / "run.yaml", prove=None, to=None, keep="30%", until="check")
    assert call(*few) == 0
    record = yaml.safe_load((out / "run.yaml").read_text())
    assert (record["keep"], record["limit"], record["to"], record["lora"]) == ("30%", 30, "llava", False)


def test_a_dry_run_says_what_is_left_and_writes_nothing(
    embedded: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*flags(embedded, tmp_path / "out", prove=None, to=None), "--dry-run") == 0
    printed = capsys.readouterr().out
    assert re.findall(r"stage: (\w+) \| done: no \| takes about: [\d.]+ (?:s|min)", printed) == [*STAGES[:6]]
    assert not (tmp_path / "out").exists()
    assert call(*flags(embedded, whole), "--dry-run") == 0
    assert capsys.readouterr().out.count("done: yes") == len(STAGES)


def test_other_runs_and_foreign_files_are_refused(
    embedded: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(out: Path, **options: Any) -> str:
        assert call(*flags(embedded, out, **options)) == 2
        return capsys.readouterr().err

    assert "keep: '20%' there, '40%' now" in refused(whole, keep="40%")
    assert "max-steps: 2 there, 7 now" in refused(whole, **{"max-steps": 7})
    (tmp_path / "kept.json").write_text("mine")
    assert "'kept.json', which isn't replaced" in refused(tmp_path)
    assert (tmp_path / "kept.json").read_text() == "mine"
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(tmp_path / "file")
    assert "has only the stages" in refused(tmp_path / "x", prove=None, until="train")
    assert "expected a file, or an amount" in refused(tmp_path / "x", test="tset.json")
    assert "training takes one of" in refused(tmp_path / "x", dtype="float16")
    assert not (tmp_path / "x").exists()


def test_several_files_become_folders(embedded: Path, tmp_path: Path) -> None:
    rows = json.loads((embedded / "pool.json").read_text())
    entries = []
    for name, part in (("one", rows[:10]), ("two", rows[10:20])):
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
        entries.append({"name": name, "data": f"{name}.json", "images": str(embedded / "images")})
    (tmp_path / "mixture.json").write_text(json.dumps({"sources": entries}))
    few = {"data": tmp_path / "mixture.json", "images": None, "limit": None, "prove": None}
    assert call(*flags(embedded, tmp_path / "out", **few)) == 0
    for name in ("test", "pool", "kept", "random"):
        found = FileRows(tmp_path / "out" / name / "mixture.json")
        assert {record.source for record in found} == {"one", "two"}
    assert (tmp_path / "out" / "trl" / "kept.parquet").exists()


@pytest.mark.parametrize("path", sorted(Path("examples").glob("*.yaml")), ids=str)
def test_the_examples_have_the_options_names(path: Path) -> None:
    app.parse_args(["run", "--config", str(path), "--out", "x"], print_error=False, exit_on_error=False)


def test_a_test_file_that_shares_images_with_the_data_is_reported(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads((embedded / "pool.json").read_text())[4:9]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    few = {"test": tmp_path / "test.json", "limit": 6, "prove": None, "to": None, "until": "check"}
    assert call(*flags(embedded, tmp_path / "out", **few)) == 0
    assert "WARNING: 2 of the 5 test rows share images or words with the data" in capsys.readouterr().err


def test_data_that_changed_is_refused(embedded: Path, embedded_model: LoadedModel, tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    rows = json.loads((embedded / "pool.json").read_text())
    scorer = DeltaAttnMask(embedded_model.model, embedded_model.processor, name=str(embedded / "model"))
    for n_rows in (20, 21):
        data.write_text(json.dumps(rows[:n_rows]))
        run = partial(scorer.run, data, tmp_path / "out", images=embedded / "images", test="5", until="split")
        if n_rows == 20:
            assert run().is_done("split")
        else:
            with pytest.raises(ArtifactError, match="has changed since"):
                run()


def test_in_python_with_a_calibration(
    embedded: Path, embedded_model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = (MaskSettings.paper(),)  # the whole grid takes a minute
    monkeypatch.setattr("delta_attnmask.calibrating.calibrator.calibration_grid", lambda n_blocks: grid)
    scorer = DeltaAttnMask(embedded_model.model, embedded_model.processor, name=str(embedded / "model"))
    done = scorer.run(
        embedded / "pool.json", tmp_path, images=embedded / "images", limit=90, test=str(embedded / "test.json")
    )
    assert done.calibration is not None
    assert done.findings["verdict"] == done.calibration.verdict == done.calibration.report["verdict"]
    assert done.calibration.verdict_sentence in (tmp_path / "report.html").read_text().replace("&#39;", "'")
    assert len(done.selection) == 18
    assert done.plan.stages == ("check", "calibrate", "score", "select", "report")
    with pytest.raises(TypeError, match="kep"):
        scorer.run(embedded / "pool.json", tmp_path, kep="20%")


# Killed


def run_and_die(home: Path, out: Path, until: str | None, moment: Moment | None) -> None:
    """What a child does: the run, until it kills itself after one more stage, or at a moment."""
    n_new = 0

    def on_stage(stage: str, is_done: bool) -> None:
        nonlocal n_new
        if moment is None and n_new:
            os.kill(os.getpid(), signal.SIGKILL)
        n_new += not is_done

    if moment is not None:
        path, _, name = moment.function.rpartition("." if "." in moment.function.partition(":")[2] else ":")
        owner = resolve_name(path)
        setattr(owner, name, killed_at(moment, getattr(owner, name)))
    options = {name.replace("-", "_"): value for name, value in FEW.items() if name != "limit"}
    rows = FileRows(home / "pool.json", home / "images", limit=FEW["limit"])
    source = ModelSource(model=str(home / "model"), device="cpu")
    load = partial(DeltaAttnMask.from_pretrained, source.model, device="cpu")
    plan, compute = RunPlan(**options, until=until), {"batch_tokens": BATCH_TOKENS}
    Run(rows, out, plan, source, load, compute, notify=lambda line: None, shown=False).run(on_stage)


@pytest.mark.timeout(600)  # a process for each stage
def test_killed_after_each_stage(embedded: Path, whole: Path, tmp_path: Path) -> None:
    codes = [finish(begin_call(run_and_die, embedded, tmp_path, None, None)) for _ in STAGES]
    assert codes == [-signal.SIGKILL] * 9 + [0]
    assert results(tmp_path) == results(whole)


MOMENTS = [
    Moment("between the two files of the split", "delta_attnmask.exporting.splitting:export_rows", n=2),
    Moment("in a batch of scoring", "delta_attnmask.scoring.units:sweep_batch", n=3),
    Moment("between the control and the selection", "delta_attnmask.running.run:export_selection", n=2),
]
NEVER = Moment("never", "delta_attnmask.running.run:export_selection", n=9)


def test_killed_in_the_middle(embedded: Path, whole: Path, tmp_path: Path) -> None:
    codes = [finish(begin_call(run_and_die, embedded, tmp_path, "select", moment)) for moment in (*MOMENTS, NEVER)]
    assert codes == [-signal.SIGKILL] * 3 + [0]
    assert results(tmp_path) == results(whole) | {"models": None, "beats": None}
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
