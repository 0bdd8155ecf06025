"""`DeltaAttnMask`: calibrate, score and select with one loaded model, in memory or into a run folder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from torch import nn

from delta_attnmask.calibrating.preset_choice import Wanted, choose_preset
from delta_attnmask.calibration import Calibration
from delta_attnmask.derived import derived_names
from delta_attnmask.encoding.encoder import Encoder, make_encoder
from delta_attnmask.errors import SettingsError
from delta_attnmask.judge import P_GOOD
from delta_attnmask.locations import as_path, as_url, beside
from delta_attnmask.modeling.load import LoadedModel, compile_blocks, load_model
from delta_attnmask.progress import is_watched, print_note, show_progress
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import FileRows, Rows, load_rows
from delta_attnmask.scores import RANKING, SCORE_SCHEMA
from delta_attnmask.scoring.jobs import score_dataset
from delta_attnmask.scoring.rivals import load_rivals, rival_names
from delta_attnmask.scoring.units import ScoringPlan
from delta_attnmask.scoring.worker import UNIT_ROWS
from delta_attnmask.settings import STANDARD_GRID, WARM_ROWS, AttentionBackend, Dtype, MaskSettings, RoundsWanted

if TYPE_CHECKING:
    from delta_attnmask.results import Scores
    from delta_attnmask.running.run import Run


class DeltaAttnMask:
    """Scores image-text conversations with a vision-language model, and calibrates the score on the data itself.

        scorer = DeltaAttnMask.from_pretrained("Qwen/Qwen2-VL-2B-Instruct")
        scores = scorer.score(rows)             # calibrates first, by itself
        kept = scores.select("20%")
        subset = rows.select(kept.indices)

    model: a Hugging Face model for image-text-to-text or causal language modelling; it is put into evaluation mode
        while it is used, and left as it was. processor: what `AutoProcessor.from_pretrained` gives for it, or the
        tokenizer of a text-only model. name: what run folders call it.

    `rows` is a `datasets.Dataset`, a list of dicts, a path, several paths, or what `load_rows` returned; images,
    format, limit and allow_outside are those of `load_rows`.
    """

    def __init__(self, model: nn.Module, processor: Any, *, name: str = "") -> None:
        own_name = getattr(getattr(model, "config", None), "name_or_path", "")
        self.loaded = LoadedModel(name or own_name or type(model).__name__, model, processor)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        dtype: Dtype = "auto",
        device: str = "auto",
        revision: str | None = None,
        compile: bool = False,
    ) -> Self:
        """Load a model with its processor; `name` is a folder, also of a PEFT adapter, or a name on the hub.

        dtype: auto is bfloat16 on a GPU (float16 on one older than Ampere), float32 on a CPU.
        device: auto, cpu, cuda, cuda:1, mps, or balanced (spread over all GPUs by accelerate).
        compile: compile the model's blocks: a slower start, then faster.
        Raises UnsupportedModelError where it can't be loaded, SettingsError where there is no such device.
        """
        loaded = load_model(name, dtype=dtype, device=device, revision=revision)
        if compile:
            compile_blocks(loaded.model)
        scorer = cls(loaded.model, loaded.processor, name=name)
        scorer.loaded = loaded
        return scorer

    @property
    def encoder(self) -> Encoder:
        """What turns a record with its images into `inputs` and `labels` for this model."""
        return make_encoder(self.loaded)

    def calibrate(
        self,
        rows: Any,
        *,
        images: str | Path | None = None,
        format: str | None = None,
        limit: int | None = None,
        allow_outside: bool = False,
        n_rows: int = 240,
        rounds: RoundsWanted = 0,
        warm_rows: int = WARM_ROWS,
        out: str | Path | None = None,
        also: Sequence[str] = (),
        grid: Sequence[MaskSettings] | None = None,
        batch_tokens: int | None = None,
        attention: AttentionBackend = "auto",
        workers: int | None = None,
        seed: int = 0,
        progress: bool | None = None,
    ) -> Calibration:
        """Plant defects in copies of a few hundred rows and find the score that ranks them below the originals.

        n_rows: originals, each with three copies. also: further scores to compare with. grid: mask settings to choose
            from; None for nine that hold for any decoder, and controls.
        out: the folder that it will be saved in; it keeps what is scored and what rounds leave, so that the same call
            resumes.
        rounds: how often copies of the model learn from the rows that they trust, see docs/calibration.md; "auto" lets
            the planted copies decide. warm_rows: that a copy learns from.
        batch_tokens, attention, workers, progress: as in `score`. seed: of the sample and the defects.
        Raises TooLittleDataError for fewer than 60 rows that can be scored, DataError where none can.
        """
        source = load_rows(rows, images, format=format, limit=limit, allow_outside=allow_outside)
        with _evaluating(self.loaded.model):
            return _calibrate(
                self.loaded,
                source,
                out,
                rounds,
                warm_rows,
                n_rows=n_rows,
                rivals=also,
                grid=grid,
                batch_tokens=batch_tokens,
                attention=attention,
                workers=workers,
                seed=seed,
                shown=is_watched(progress),
            )

    def score(
        self,
        rows: Any,
        *,
        settings: Wanted = "auto",
        calibration: Calibration | None = None,
        rounds: RoundsWanted = 0,
        warm_rows: int = WARM_ROWS,
        out: str | Path | None = None,
        images: str | Path | None = None,
        format: str | None = None,
        limit: int | None = None,
        allow_outside: bool = False,
        columns: Sequence[str] = (),
        also: Sequence[str] = (),
        sweep: bool = False,
        embeddings: bool = False,
        batch_tokens: int | None = None,
        attention: AttentionBackend = "auto",
        workers: int | None = None,
        unit_rows: int = UNIT_ROWS,
        progress: bool | None = None,
    ) -> "Scores":
        """Score every row; a row that can't be used stays in the table with its reason.

        settings: "auto" calibrates on these rows first; "relative" and "paper" are presets; or MaskSettings, or a
            folder that `calibrate` made. calibration: what `calibrate` returned, instead.
        rounds, warm_rows: as in `calibrate`, where it calibrates by itself; rounds need `out`.
        out: a run folder, created if missing; the same call resumes it. None keeps nothing but what is returned.
        columns: of the rows, to keep in the table, for quotas; if `rows` comes from `load_rows`, it has them already.
        also: further scores, such as "el2n" (see docs/concepts.md). sweep: score the standard grid of settings too.
        embeddings: keep a vector of each row, for diversity, near duplicates and clusters.
        batch_tokens: upper bound of rows times longest row in a batch; halved when memory runs out. None: 8192, up to
            32768 on GPUs with much memory.
        workers: processes that read images and encode; None: none on a CPU, up to 8 with a GPU.
        unit_rows: rows of a work unit, the most that a killed run loses.
        progress: show a bar; None shows it in a terminal or a notebook.
        Raises DataError where no row can be scored, UnsupportedModelError where the model can't, ArtifactError where
        `out` belongs to another run.
        """
        from delta_attnmask.results import Scores

        if calibration is not None and settings != "auto":
            raise SettingsError("settings and calibration are both given; leave one out")
        source = load_rows(rows, images, format=format, limit=limit, allow_outside=allow_outside, columns=columns)
        shown = is_watched(progress)
        with _evaluating(self.loaded.model), TemporaryDirectory(prefix="delta-attnmask-") as temporary:
            folder = temporary if out is None else out
            plan, calibration = make_plan(
                self.loaded,
                source,
                out,
                settings=settings if calibration is None else calibration,
                rounds=rounds,
                warm_rows=warm_rows,
                also=also,
                sweep=sweep,
                embeddings=embeddings,
                batch_tokens=batch_tokens,
                attention=attention,
                workers=workers,
                shown=shown,
            )
            with show_progress("scoring", source.n_rows, shown=shown) as advance:
                score_dataset(self.loaded, source, folder, plan, unit_rows=unit_rows, on_progress=advance)
            scores = Scores.load(folder)
        return scores if out is not None else replace(scores, calibration=calibration)

    def run(
        self,
        data: str | Path | Sequence[str | Path],
        out: str | Path,
        *,
        images: str | Path | None = None,
        format: str | None = None,
        limit: int | None = None,
        allow_outside: bool = False,
        batch_tokens: int | None = None,
        attention: AttentionBackend = "auto",
        workers: int | None = None,
        progress: bool | None = None,
        **options: Any,
    ) -> "Run":
        """Go from files to a selection with its control and report in the folder `out`, as `delta-attnmask run` does.

            done = scorer.run("train.json", "out", images="images", keep="20%", prove=("random",))
            print(done.findings["verdict_sentence"])

        The same call resumes. options: the fields of `RunPlan`. With `prove`, models are trained from what
        `from_pretrained` loads by this one's name. Raises what the stages raise; see `Run.run`.
        """
        from delta_attnmask.running.plan import ModelSource, RunPlan
        from delta_attnmask.running.run import Run

        if "prove" in options and isinstance(options["prove"], str):
            options["prove"] = (options["prove"],)
        rows = FileRows(data, images, format=format, limit=limit, image_limits=ImageLimits(allow_outside=allow_outside))
        source = ModelSource(model=self.loaded.name, revision=self.loaded.revision, device=self.loaded.device.type)
        compute = {"batch_tokens": batch_tokens, "attention": attention, "workers": workers}
        run = Run(rows, out, RunPlan(**options), source, lambda: self, compute, shown=is_watched(progress))
        run.run()
        return run


def make_plan(
    loaded: LoadedModel | None,
    rows: Rows,
    out: str | Path | None,
    *,
    settings: Wanted = "auto",
    changes: Mapping[str, Any] | None = None,
    also: Sequence[str] = (),
    sweep: bool = False,
    embeddings: bool = False,
    may_calibrate: bool = True,
    rounds: RoundsWanted = 0,
    warm_rows: int = WARM_ROWS,
    shown: bool = True,
    **compute: Any,
) -> tuple[ScoringPlan, Calibration | None]:
    """What a run computes, after calibrating if that is asked for, and the calibration that it goes by, if any.

    loaded: None where the model is elsewhere. out: the run's folder, in which the calibration is kept.
    changes: single mask settings given beside `settings`. may_calibrate: False for one of several processes.
    rounds, warm_rows: as in `DeltaAttnMask.calibrate`; rounds need `out`.
    shown: show the progress. compute: batch_tokens, attention, workers, as in `DeltaAttnMask.score` like the others.
    """

    def calibrate() -> Calibration:
        assert loaded is not None
        found = _calibrate(loaded, rows, out, rounds, warm_rows, shown=shown, **compute)
        if shown:
            print_note(found.describe())
        return found

    if rounds != 0 and settings != "auto":
        raise SettingsError("rounds are a part of calibrating: leave out settings, or calibrate with rounds first")
    load_rivals(also)  # refuses unknown names before anything is computed
    if taken := set(rows.columns) & {*SCORE_SCHEMA.names, *rival_names(), *derived_names(), P_GOOD, RANKING}:
        raise SettingsError(f"column={min(taken)!r}: the scores have a column of this name; rename it in the data")
    with nullcontext() if out is None else beside(out) as folder:
        may = may_calibrate and loaded is not None
        chosen, calibration = choose_preset(
            settings, changes or {}, loaded, rows, folder, calibrate if may else None, print_note
        )
    asked = rounds if calibration is None else calibration.report.get("rounds", {}).get("asked", 0)
    if rounds not in (0, asked):
        raise SettingsError(f"{out} was calibrated with rounds={asked!r}, not {rounds!r}; choose another folder")
    judged = () if chosen.judge is None else chosen.judge.columns
    plan = ScoringPlan(
        settings=chosen.mask,
        sweep=STANDARD_GRID if sweep else (),
        rivals=load_rivals((*also, *judged)),
        form=chosen.form,
        embed=embeddings,
        calibration=chosen.calibration,
        judge=chosen.judge,
        adapters=chosen.adapters,
        **compute,
    )
    return plan, calibration


def _calibrate(
    loaded: LoadedModel,
    rows: Rows,
    folder: str | Path | None,
    rounds: RoundsWanted,
    warm_rows: int,
    *,
    shown: bool,
    **how: Any,
) -> Calibration:
    """Calibrate the model as it is, or in rounds that are kept in a folder."""
    if rounds == 0:
        from delta_attnmask.calibrating.calibrator import calibrate_rows

        with show_progress("calibrating", shown=shown) as advance:
            place = None if folder is None or as_url(folder) else as_path(folder)
            return calibrate_rows(loaded, rows, folder=place, on_progress=advance, **how)
    if folder is None or as_url(folder):
        raise SettingsError("rounds keep what they train: give a folder on this machine (out)")
    try:
        from delta_attnmask.rounds import calibrate_in_rounds
    except ImportError as error:
        raise SettingsError("rounds train adapters, which needs pip install 'delta-attnmask[train]'") from error
    return calibrate_in_rounds(loaded, rows, folder, rounds, warm_rows=warm_rows, shown=shown, **how)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout and the like; afterwards each module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
