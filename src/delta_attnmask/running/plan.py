"""What `run` is asked to do, and its record in DIR/run.yaml. No torch here.

`RunPlan` is also the options of `run`: its fields' descriptions are the command's help, and their names the keys of
run.yaml.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from cyclopts import Group, Parameter

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.manifest import name_differences
from delta_attnmask.reading.formats import TargetName
from delta_attnmask.selection import Budget
from delta_attnmask.settings import MAX_FAILED, WARM_ROWS, Dtype, RoundsWanted
from delta_attnmask.storage import write_text_atomically
from delta_attnmask.training.plan import LoraSettings, Reporter, Share, TrainingPlan, require_reporter

FILE = "run.yaml"
Opponent = Literal["random", "full"]
StageName = Literal[
    "check", "split", "calibrate", "score", "select", "report", "export", "train", "evaluate", "compare"
]
STAGES: tuple[StageName, ...] = get_args(StageName)
PROVING: tuple[StageName, ...] = ("train", "evaluate", "compare")

_HEADER = "# What was run: `delta-attnmask run --config THIS --out ELSEWHERE` repeats it.\n"
# May differ when a run is resumed: where and how fast it computes, and how far it goes.
_FREE = {
    "out",
    "max-failed",
    "device",
    "batch-tokens",
    "attention",
    "workers",
    "until",
    "to",
    "prove",
    "seeds",
    "report-to",
}
_OWN = {
    *("check", "test", "pool", "split", "calibration", "run", "kept", "random", "report"),
    *("train", "eval", "proof", *get_args(TargetName)),
}
_OF_TRAINING = {
    *("lora", "epochs", "max-steps", "lr", "batch-size", "accumulate"),
    *("gradient-checkpointing", "max-tokens", "max-new-tokens"),
}
_Proof = Parameter(group=Group("Proof", sort_key=3))


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where the model can be loaded again. model: a folder or a name on the hub."""

    model: str
    revision: str | None = None
    dtype: Dtype = "auto"
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What is done with a data set, and how. Raises SettingsError for values out of range.

    Args:
        keep: How much to keep: a share of the rows that have a score, such as 20%, or a number of rows.
        test: A file of test rows, or how much of the data to set aside as one, such as 10% or 500.
        max_failed: Share of the rows that may be unusable, such as 5%; if more are, nothing is done with the others.
        rounds: Calibrate in rounds, as `calibrate --rounds` does: 0, 1, 2 or auto.
        warm_rows: Rows that a copy of the model learns from in a round, at most.
        also: Further scores, as for `score`.
        to: Also write the kept and the random rows in this trainer's format.
        until: Stop after this stage.
        seed: Seed of the test split, the calibration and the random rows; trainings count up from it.
        prove: Train on the kept and on as many random rows (with full also on all rows), evaluate these models and the
            untouched one on the test split, and compare.
        seeds: How many times each training is done, with different seeds.
        lora: Train low-rank adapters; --no-lora trains all weights.
        epochs: Passes over the data.
        max_steps: Make this many steps instead.
        learning_rate: Peak learning rate; by default 2e-4, or 2e-5 with --no-lora.
        batch_size: Rows per forward in training.
        accumulate: Forwards per step.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, about a third slower.
        max_tokens: Leave longer rows out of training.
        max_new_tokens: Longest answer; by default 16 tokens more than the test split's longest, at most 512.
        report_to: Where to send the training metrics too; needs that package.
    """

    keep: str = "20%"
    test: str = "10%"
    max_failed: Share = MAX_FAILED
    rounds: RoundsWanted = 0
    warm_rows: int = WARM_ROWS
    also: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ()
    to: TargetName | None = None
    until: StageName | None = None
    seed: int = 0
    prove: Annotated[tuple[Opponent, ...] | None, Parameter(consume_multiple=True), _Proof] = None
    seeds: Annotated[int, _Proof] = 3
    lora: Annotated[bool, Parameter(negative="--no-lora"), _Proof] = True
    epochs: Annotated[float, _Proof] = 1.0
    max_steps: Annotated[int | None, _Proof] = None
    learning_rate: Annotated[float | None, Parameter(name="lr"), _Proof] = None
    batch_size: Annotated[int, _Proof] = 8
    accumulate: Annotated[int, _Proof] = 1
    gradient_checkpointing: Annotated[bool, _Proof] = False
    max_tokens: Annotated[int | None, _Proof] = None
    max_new_tokens: Annotated[int | None, _Proof] = None
    report_to: Annotated[Reporter, _Proof] = "none"

    def __post_init__(self) -> None:
        Budget.of(self.keep)
        if not Path(self.test).exists():
            self.test_budget  # noqa: B018 - refuses what is neither a file nor an amount
        if self.seeds < 1 or self.seed < 0:
            raise SettingsError(f"seeds={self.seeds}, seed={self.seed}: expected at least one, counted from 0 or more")
        self.training(0)
        if self.until is not None and self.until not in self.stages:
            raise SettingsError(f"until={self.until!r}: this run has only the stages {', '.join(self.stages)}")
        require_reporter(self.report_to)

    @property
    def opponents(self) -> tuple[Opponent, ...]:
        """What the kept rows are compared with beside the untouched model; none without a proof."""
        return () if self.prove is None else tuple(dict.fromkeys(("random", *self.prove)))

    @property
    def stages(self) -> tuple[StageName, ...]:
        """The stages that this run has, in their order; `until` left aside."""
        left_out = {
            *(() if self.test_budget else ("split",)),
            *(() if self.to else ("export",)),
            *(() if self.opponents else PROVING),
        }
        return tuple(stage for stage in STAGES if stage not in left_out)

    @property
    def test_budget(self) -> Budget | None:
        """How much is set aside; None where `test` is a file."""
        if Path(self.test).exists():
            return None
        try:
            return Budget.parse(self.test)
        except SettingsError as error:
            raise SettingsError(f"test={self.test!r}: expected a file, or an amount such as 10% or 500") from error

    @property
    def in_rounds(self) -> dict[str, Any]:
        """The options of `calibrate` that are about rounds."""
        return {"rounds": self.rounds, "warm_rows": self.warm_rows}

    def training(self, number: int) -> TrainingPlan:
        """How the model is trained for the `number`-th time on the same rows."""
        shared = {field.name for field in fields(TrainingPlan)} & {field.name for field in fields(self)} - {"lora"}
        values = {name: getattr(self, name) for name in shared} | {"seed": self.seed + number}
        return TrainingPlan(**values, lora=LoraSettings() if self.lora else None)

    def to_flags(self) -> dict[str, Any]:
        """By the names of the flags, plain values; without what isn't given."""
        values = asdict(self) | {"also": list(self.also), "prove": list(self.opponents) or None}
        if self.test_budget is None:
            values["test"] = str(Path(self.test).absolute())
        return to_flags(values)


def to_flags(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the names of their flags; without what isn't given."""
    names = {"learning_rate": "lr"}
    return {
        names.get(name, name).replace("_", "-"): value
        for name, value in values.items()
        if value is not None and value != []
    }


def keep_record(out: Path, flags: Mapping[str, Any]) -> None:
    """Write OUT/run.yaml; ArtifactError where it is of another run, or something else has the place.

    What may change between starts is replaced: how fast it computes, how far it goes, and how it trains while nothing
    is trained yet.
    """
    path = out / FILE
    free = _FREE if (out / "train").exists() else _FREE | _OF_TRAINING
    if path.exists():
        found = read_record(path)
        fixed = [{name: value for name, value in one.items() if name not in free} for one in (found, flags)]
        if differences := name_differences(*fixed):
            raise ArtifactError(
                f"{out} holds another run; choose another folder, or use the same options. What differs: "
                f"{'; '.join(differences)}"
            )
    elif taken := sorted(path.name for path in out.iterdir() if path.name.split(".")[0] in _OWN):
        raise ArtifactError(f"{out} holds no {FILE}, but {taken[0]!r}, which isn't replaced; choose another folder")
    write_text_atomically(path, _HEADER + yaml.safe_dump(dict(flags), sort_keys=False, allow_unicode=True))


def read_record(path: Path) -> dict[str, Any]:
    """The flags in a run.yaml."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ArtifactError(f"{path} can't be read: {error}") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path}: expected names of flags with their values")
    return found
