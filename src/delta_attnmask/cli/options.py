"""Options that several commands share, each group a dataclass whose fields are the options."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, ArgumentCollection, Group, Parameter
from cyclopts.config import Dict

from delta_attnmask import __version__
from delta_attnmask.calibration import read_preset
from delta_attnmask.cli import MAIN
from delta_attnmask.errors import SettingsError
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import FileRows, Place
from delta_attnmask.runs import RunFolder
from delta_attnmask.settings import AttentionBackend, Dtype, Exclude, MaskSettings, Order, Queries, Replacement, Tokens
from delta_attnmask.storage import claim_output, write_text_atomically

if TYPE_CHECKING:
    from delta_attnmask.modeling.load import LoadedModel
    from delta_attnmask.scorer import DeltaAttnMask
    from delta_attnmask.selection import Selection

DATA = Group("Data", sort_key=1)
_MODEL = Group("Model", sort_key=2)
SCORES = Group("Scores", sort_key=3)
_MASKING = Group("Masking", help="Single settings; each replaces the one from --settings.", sort_key=4)
RULES = Group("Rules", help="What single rules take.", sort_key=5)
TRAINING = Group("Training", sort_key=6)
_COST = Group("Costs", sort_key=7)
SPEED = Group("Speed", sort_key=8)
MACHINES = Group("Several processes", sort_key=9)

Json = Annotated[Path | None, Parameter(name="--json", help="File for all figures, as JSON; ends in .json.")]
Force = Annotated[bool, Parameter(help="Replace a file that this tool didn't write; never the data itself.")]

Strict = Annotated[bool, Parameter(help="Exit with 3 if the verdict is to keep all data.")]


@Parameter(name="*", group=DATA)
@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which rows are read, and how.

    Args:
        data: Files (JSON, JSONL, parquet, arrow, WebDataset tars), a pattern such as 'shards/*.tar', a folder, or a
            mixture file in JSON or YAML; docs/formats.md has the formats.
        images: Folder that the rows' image paths are relative to.
        limit: Read only the first rows.
        format: Name of the data's format (`check --help` lists them); by default it is recognised from the content.
        allow_outside: Follow absolute image paths, and links that leave the image folder.
    """

    data: Annotated[list[Path], Parameter(consume_multiple=True, group=MAIN)]
    images: Annotated[Path | None, Parameter(group=MAIN)] = None
    limit: int | None = None
    format: str | None = None
    allow_outside: bool = False

    def open(self, columns: Sequence[str] = ()) -> FileRows:
        """The rows, to be read. columns: of the data, to keep beside the scores."""
        how: dict[str, Any] = {"format": self.format, "limit": self.limit, "columns": columns}
        return FileRows(self.data, self.images, image_limits=ImageLimits(allow_outside=self.allow_outside), **how)


@Parameter(name="*", group=DATA)
@dataclass(frozen=True, kw_only=True)
class RunDataOptions:
    """Where the data of a run is now.

    Args:
        data: The data, if it has moved since it was scored.
        images: The image folder, if it has moved.
        allow_outside: Follow absolute image paths, and links that leave the image folder.
    """

    data: Path | None = None
    images: Path | None = None
    allow_outside: bool = False

    @property
    def place(self) -> Place:
        return Place(self.data, self.images, ImageLimits(allow_outside=self.allow_outside))


@Parameter(name="*", group=_MODEL)
@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """How a model is loaded.

    Args:
        dtype: auto: bfloat16 on a GPU (float16 on one older than Ampere), float32 on a CPU.
        device: auto, cpu, cuda, cuda:1, mps, or balanced (spread over all GPUs by accelerate).
    """

    dtype: Dtype = "auto"
    device: str = "auto"

    def load_model(self, name: str, revision: str | None = None) -> "LoadedModel":
        from delta_attnmask.modeling.load import load_model

        return load_model(name, dtype=self.dtype, device=self.device, revision=revision)


@Parameter(name="*", group=_MODEL)
@dataclass(frozen=True, kw_only=True)
class ModelOptions(DeviceOptions):
    """Which model is loaded, and how.

    Args:
        model: Folder of a Hugging Face model or of a LoRA adapter, or a model's name on the hub.
        revision: Revision of a model on the hub.
    """

    model: Annotated[str, Parameter(group=MAIN)]
    revision: str | None = None

    def load(self) -> "DeltaAttnMask":
        """The model with its processor, ready to score."""
        from delta_attnmask.scorer import DeltaAttnMask

        return DeltaAttnMask.from_pretrained(self.model, dtype=self.dtype, device=self.device, revision=self.revision)


@Parameter(name="*", group=SPEED)
@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """How the model runs over the rows.

    Args:
        batch_tokens: Limit on rows times longest row in a batch; halved when memory runs out. By default 8192, up to
            32768 on GPUs with much memory.
        attention: Code that sums the attention; auto takes the fastest that model and device allow.
        workers: Processes that read images and encode; by default none on a CPU and up to 8 with a GPU. 0 encodes in
            the main process.
    """

    batch_tokens: int | None = None
    attention: AttentionBackend = "auto"
    workers: int | None = None

    def __post_init__(self) -> None:
        require_workers(self.workers)


@Parameter(name="*", group=_MASKING)
@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """Single mask settings; each changes what `--settings` gives.

    Args:
        queries: Whose attention counts.
        tokens: Which tokens may be masked.
        fraction: Share of these tokens to mask, 0 to 1.
        block: Decoder block whose output is masked; negative counts from the end.
        replacement: What a masked state becomes.
        order: Which tokens are masked first.
        exclude: Tokens that are never masked.
    """

    queries: Queries | None = None
    tokens: Tokens | None = None
    fraction: float | None = None
    block: int | None = None
    replacement: Replacement | None = None
    order: Order | None = None
    exclude: Exclude | None = None

    def __post_init__(self) -> None:
        MaskSettings(**self.given)  # errors are reported before anything large is imported or loaded

    @property
    def given(self) -> dict[str, Any]:
        """Those that were given, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def choose(self, settings: str | None, run: RunFolder | None) -> MaskSettings:
        """The mask of a preset or a calibration, or else of a run, or else of `relative`; with what is given here."""
        if settings is None and run is not None:
            names = {field.name for field in fields(MaskSettings)}
            mask = MaskSettings(**{name: value for name, value in run.manifest.settings.items() if name in names})
        else:
            mask = read_preset(settings or "relative")[0].mask
        return replace(mask, **self.given)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SelectionOptions:
    """Which selection of a run is looked at.

    Args:
        selection: A file that `select` wrote, or its note. If not given, what `select --keep` would keep by default.
        keep: How much, if no selection is given.
        by: Column to rank by, if no selection is given.
    """

    selection: Path | None = None
    keep: str = "20%"
    by: str | None = None

    def read(self, run: RunFolder) -> "Selection":
        from delta_attnmask.selecting.note import read_note
        from delta_attnmask.selecting.run_selection import select_from_run

        if self.selection is not None:
            return read_note(self.selection, run)
        return select_from_run(run, self.keep, by=self.by)


@Parameter(name="*", group=_COST)
@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """What training costs, for the break-even.

    Args:
        train_rate: Rows per second in training, to find out whether scoring pays.
        epochs: How many times training sees each row.
    """

    train_rate: float | None = None
    epochs: float = 1.0

    def __post_init__(self) -> None:
        if self.train_rate is not None and self.train_rate <= 0:
            raise SettingsError(f"train_rate={self.train_rate}: expected rows per second, above 0")


def read_config(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take what the command line doesn't give from the YAML file in --config, if the command has that option.

    Its keys are the names of the options; an unknown one is refused.
    """
    for argument in arguments:
        if "--config" in argument.names and argument.tokens:
            from delta_attnmask.running.plan import read_record

            path = Path(argument.tokens[0].value)
            Dict(read_record(path), source=str(path), use_commands_as_keys=False)(app, commands, arguments)


def require_workers(workers: int | None) -> None:
    if workers is not None and workers < 0:
        raise SettingsError(f"workers={workers}: expected 0 or more")


def split_names(texts: Sequence[str] | None) -> list[str] | None:
    """Names that were given one by one or with commas between them; None where none was given."""
    return None if texts is None else [name for text in texts for name in text.split(",") if name]


def claim_json(path: Path | None, inputs: Iterable[Path | None], *, force: bool) -> None:
    """Refuse, before anything is computed, a file for --json that can't be written; see `claim_output`."""
    if path is not None:
        claim_output(path, (".json",), inputs, force=force)


def write_json(path: Path | None, report: Mapping[str, Any]) -> None:
    """Write what --json asks for, if it was given; `claim_json` comes first."""
    if path is not None:
        marked = {"generator": f"delta-attnmask {__version__}"} | dict(report)
        write_text_atomically(path, json.dumps(marked, indent=1, ensure_ascii=False) + "\n")
