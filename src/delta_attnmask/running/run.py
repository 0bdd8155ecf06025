"""From data to a selection, and to the proof that it is better than chance: one stage after the other into a folder.

DIR/run.yaml                         what was run, by the names of the flags
DIR/check.json                       what the data holds, and which data that is
DIR/test.json, pool.json, split.json the test split, the rest, and which rows are which
DIR/calibration/, run/               as `calibrate` and `score` write them
DIR/kept.json, random.json           the selection and its control, each with its note
DIR/report.html
DIR/TRAINER/                         both for a trainer, and how it loads them
DIR/train/NAME-SEED, eval/…          models and their evaluations
DIR/proof.json                       the outcome

Data files have the input's own endings. A stage is done when its own files say so; they are written last, and whole.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import numpy as np

from delta_attnmask.calibrating.preset_choice import FALLBACK
from delta_attnmask.calibration import FILE as CALIBRATION
from delta_attnmask.calibration import Calibration, judge_calibration
from delta_attnmask.errors import ArtifactError, DataError, TooLittleDataError
from delta_attnmask.exporting.conversion import ENDINGS
from delta_attnmask.exporting.run_export import MIXTURE, export_rows, export_selection, is_one_file, open_scored
from delta_attnmask.exporting.splitting import count_shared, split_rows, write_split
from delta_attnmask.progress import print_note, show_progress
from delta_attnmask.reading.faults import describe_faults
from delta_attnmask.reading.formats import choose_target
from delta_attnmask.reading.rows import FileRows, Place
from delta_attnmask.reading.survey import survey
from delta_attnmask.reporting.page import write_page
from delta_attnmask.reporting.run_report import Request, make_report
from delta_attnmask.running.plan import PROVING, ModelSource, RunPlan, StageName, keep_record, to_flags
from delta_attnmask.running.proof import Proof
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.note import note_path, read_note
from delta_attnmask.selecting.run_selection import select_from_run
from delta_attnmask.selection import Selection
from delta_attnmask.storage import hold_lock, read_object, write_text_atomically
from delta_attnmask.training.plan import require_trainable

if TYPE_CHECKING:
    from delta_attnmask.scorer import DeltaAttnMask

_TOO_FEW = "too_few.json"

OnStage = Callable[[StageName, bool], None]  # its name, and whether it is done already


class Run:
    """A run in a folder. Nothing is read or written before `run` or `estimate`.

    load: gives the model that scores; called only where a stage needs it. compute: batch_tokens, attention, workers.
    notify: gets what the user should know, line by line.
    """

    def __init__(
        self,
        rows: FileRows,
        out: str | Path,
        plan: RunPlan,
        source: ModelSource,
        load: Callable[[], "DeltaAttnMask"],
        compute: Mapping[str, Any],
        *,
        notify: Callable[[str], None] = print_note,
        shown: bool = True,
    ) -> None:
        if plan.opponents:
            require_trainable(source.device, source.dtype)
        self.rows, self.out, self.plan, self.source = rows, Path(out), plan, source
        self.compute, self.notify, self._load, self._shown = compute, notify, load, shown
        self._held: DeltaAttnMask | None = None
        self.proof = Proof(self.out, plan, source, self.open_part, compute, shown=shown)

    # Where things are

    def path_of(self, name: str) -> Path:
        """Where a part of the data is written."""
        return self.out / (name + self.rows.parts[0].path.suffix if is_one_file(self.rows) else name)

    def open_part(self, name: str) -> FileRows:
        """The rows of "pool", "kept", "random", "full" (what those were selected from) or "test"."""
        if name == "test" and not self.plan.test_budget:
            return self.open_rows(self.plan.test)
        if name == "full":
            return self.pool
        path, spec = self.path_of(name), self.rows.format_name
        mixture = path / MIXTURE
        return self.open_rows(mixture if mixture.exists() else path, None if spec.startswith("[") else spec)

    def open_rows(self, location: str | Path, format: str | None = None, limit: int | None = None) -> FileRows:
        """Rows that find their images where the data's are."""
        return FileRows(location, self._images, format=format, limit=limit, image_limits=self.rows.image_limits)

    @cached_property
    def pool(self) -> FileRows:
        """What is scored and selected from: all rows but those of the test split."""
        return self.open_part("pool") if self.plan.test_budget else self.rows

    @property
    def _images(self) -> str | None:
        return None if self.rows.images_root is None else str(self.rows.images_root)

    @property
    def _place(self) -> Place:
        return Place(self.pool.location, self._images, self.rows.image_limits)

    @property
    def scorer(self) -> "DeltaAttnMask":
        self._held = self._held or self._load()
        return self._held

    @property
    def calibration(self) -> Calibration | None:
        """None where there was too little to calibrate on."""
        folder = self.out / "calibration"
        return Calibration.load(folder) if (folder / CALIBRATION).exists() else None

    @property
    def selection(self) -> Selection:
        return read_note(self.path_of("kept"), RunFolder.open(self.out / "run"))

    @property
    def findings(self) -> dict[str, Any]:
        """The verdict of the calibration, and of the proof if there is one, for JSON."""
        return judge_calibration(self.calibration) | {"proof": self.proof.read()}

    @property
    def says_no(self) -> bool:
        """Whether the calibration or the proof advises against selecting."""
        calibration, proof = self.calibration, self.proof.read()
        return (calibration is not None and calibration.verdict.is_no) or (proof is not None and proof["is_no"])

    # The run

    def to_flags(self) -> dict[str, Any]:
        """Everything that decides the run, by the names of the flags."""
        rows, location = self.rows, self.rows.location
        model = self.source.model
        own = asdict(self.source) | {"model": str(Path(model).absolute()) if Path(model).is_dir() else model}
        data = {
            "data": json.loads(location) if location.startswith("[") else [location],
            "images": self._images,
            "limit": rows.limit,
            "format": None if rows.format_name.startswith("[") else rows.format_name,
            "allow_outside": rows.image_limits.allow_outside,
            "out": str(self.out.absolute()),
        }
        return to_flags(own | data) | self.plan.to_flags() | to_flags(self.compute)

    def run(self, on_stage: OnStage = lambda stage, is_done: None) -> None:
        """Do the stages that aren't done, up to `plan.until`.

        on_stage is called before each. Raises ArtifactError where the folder holds another run or is in use, or the
        data has changed since; and what the stages raise.
        """
        if self.out.is_file():
            raise ArtifactError(f"{self.out} is a file; choose a folder")
        self.out.mkdir(parents=True, exist_ok=True)
        with hold_lock(self.out / "lock"):
            keep_record(self.out, self.to_flags())
            self._refuse_changed()
            for stage in self.plan.stages:
                is_done = self.is_done(stage)
                on_stage(stage, is_done)
                if not is_done:
                    self._do(stage)
                if stage == self.plan.until:
                    break

    def is_done(self, stage: StageName) -> bool:
        return self._stages[stage][1]()

    @property
    def _stages(self) -> dict[StageName, tuple[Callable[[], None], Callable[[], bool]]]:
        """What each stage does, and whether it is done."""

        def are_there(*names: str | Path) -> Callable[[], bool]:
            return lambda: all((self.out / name).exists() for name in names)

        notes = [note_path(self.path_of(name)) for name in ("kept", "random")]
        found, none = (are_there(f"calibration/{name}") for name in (CALIBRATION, _TOO_FEW))
        return {
            "check": (self._check, are_there("check.json")),
            "split": (self._split, are_there("split.json")),
            "calibrate": (self._calibrate, lambda: found() or none()),
            "score": (self._score, are_there("run/complete.json")),
            "select": (self._select, are_there(*(note.name for note in notes))),
            "report": (self._report, are_there("report.html")),
            "export": (self._export, are_there(f"{self.plan.to}/export.json")),
            "train": (self.proof.train, lambda: self.proof.is_trained),
            "evaluate": (self.proof.evaluate, lambda: self.proof.is_evaluated),
            "compare": (self._compare, lambda: self.proof.read() is not None),
        }

    def _do(self, stage: StageName) -> None:
        if stage in PROVING:
            self._held = None  # the memory is needed for the model that is trained
        self._stages[stage][0]()

    def _refuse_changed(self) -> None:
        found = read_object(self.out / "check.json").get("input")
        if found is not None and found != asdict(self.rows.fingerprint):
            raise ArtifactError(f"{self.rows.location} has changed since {self.out} was begun; choose another folder")

    def _write_json(self, name: str, content: Any) -> None:
        write_text_atomically(self.out / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def estimate(self) -> dict[StageName, float]:
        """About how many seconds each stage that isn't done takes here; see `estimate_stages`."""
        from delta_attnmask.running.estimating import estimate_stages

        return estimate_stages(self)

    # The stages

    def _check(self) -> None:
        n_done = count(1)
        with show_progress("checking", self.rows.n_rows, shown=self._shown) as advance:
            found = survey(self.rows, on_row=lambda: advance(next(n_done), self.rows.n_rows))
        failed = f"{found.n_failed:,} of {found.n_rows:,} rows can't be used; {describe_faults(found.faults)}"
        if not found.n_ok or found.n_failed > self.plan.max_failed * found.n_rows:
            raise DataError(f"{failed}; fix them, or allow more with --max-failed")
        if found.n_failed:
            self.notify(failed)
        if not self.plan.test_budget and (n_shared := count_shared(test := self.open_part("test"), self.rows)):
            self.notify(f"WARNING: {n_shared:,} of the {test.n_rows:,} test rows share images or words with the data")
        self._write_json("check.json", {"input": asdict(self.rows.fingerprint)} | found.to_dict())

    def _split(self) -> None:
        paths = self.path_of("test"), self.path_of("pool")
        _clear(*paths)
        assert self.plan.test_budget is not None
        found = split_rows(self.rows, self.plan.test_budget, seed=self.plan.seed)
        write_split(self.rows, found, *paths)
        self._write_json("split.json", {name: rows.tolist() for name, rows in asdict(found).items()})

    def _calibrate(self) -> None:
        try:
            found = self.scorer.calibrate(
                self.pool,
                **self.plan.in_rounds,
                out=self.out / "calibration",
                **self.compute,
                seed=self.plan.seed,
                progress=self._shown,
            )
        except TooLittleDataError as error:
            self.notify(f"settings: not calibrated ({error}); using the preset {FALLBACK!r}")
            self._write_json(f"calibration/{_TOO_FEW}", {"reason": str(error)})
            return
        self.notify(found.describe())
        found.save(self.out / "calibration")

    def _score(self) -> None:
        settings = FALLBACK if self.calibration is None else self.out / "calibration"
        scored = partial(self.scorer.score, self.pool, settings=settings, also=self.plan.also)
        scored(out=self.out / "run", **self.compute, progress=self._shown)

    def _select(self) -> None:
        run = RunFolder.open(self.out / "run")
        kept = select_from_run(run, self.plan.keep)
        drawn = select_from_run(run, len(kept), rule="random", quota_by=kept.quota_by, seed=self.plan.seed)
        _clear(self.path_of("kept"), self.path_of("random"))
        for name, selection in (("random", drawn), ("kept", kept)):
            export_selection(selection, run, self.path_of(name), place=self._place)

    def _report(self, proof: Mapping[str, Any] | None = None) -> None:
        run = RunFolder.open(self.out / "run")
        said = [] if self.calibration else [f"Verdict: {judge_calibration(None)['verdict_sentence']}."]
        said += [f"Proof: {line}." for line in proof["sentences"]] if proof else []
        request = Request(run, self.selection, is_written=True, place=self._place, opening=tuple(said))
        write_page(self.out / "report.html", make_report(request))

    def _export(self) -> None:
        run, to, notes = RunFolder.open(self.out / "run"), self.plan.to, {}
        assert to is not None
        data, scores = open_scored(run, self._place), run.read_scores(["n_turns"])
        for name in ("kept", "random"):
            rows = np.sort(read_note(self.path_of(name), run).indices)
            path = self.out / to / (name + ENDINGS[choose_target(to, True).file])
            done = export_rows(data, rows, path, to=to, scores=scores, force=True)
            notes[name] = asdict(done) | {"file": str(path)}
        self._write_json(f"{to}/export.json", notes)

    def _compare(self) -> None:
        found = self.proof.compare()
        self._report(found)
        self._write_json("proof.json", found)


def _clear(*paths: Path) -> None:
    """Remove what a killed start left half-written."""
    for path in paths:
        rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
