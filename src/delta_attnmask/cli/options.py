"""Options that several commands share, each as a dataclass whose fields are the options."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from delta_attnmask.errors import SettingsError
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.settings import (
    Exclude,
    MaskSettings,
    Order,
    Queries,
    Replacement,
    Tokens,
)

if TYPE_CHECKING:
    from delta_attnmask.scorer import DeltaAttnMask


_DATA = Group("Data", sort_key=1)
_MODEL = Group("Model", sort_key=2)
_MASKING = Group("Masking", help="Single settings; those that aren't given are as --settings has them.", sort_key=3)
_SPEED = Group("Speed", sort_key=4)


@Parameter(name="*", group=_DATA)
@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which rows are read, and how.

    Parameters
    ----------
    data
        Files (JSON, JSONL, parquet, arrow, WebDataset tars), a pattern such as 'shards/*.tar', a folder, or a mixture
        file in JSON or YAML; docs/formats.md has the formats.
    images
        Folder below which the rows' image paths lie.
    limit
        Only the first rows.
    format
        Name of the data's format (`check --help` lists them); recognised by content if not given.
    allow_outside
        Follow absolute image paths, and links that leave the image folder.
    """

    data: Annotated[list[Path], Parameter(consume_multiple=True)]
    images: Path | None = None
    limit: int | None = None
    format: str | None = None
    allow_outside: bool = False

    def open(self) -> FileRows:
        """The rows, to be read."""
        limits = ImageLimits(allow_outside=self.allow_outside)
        return FileRows(self.data, self.images, image_limits=limits, format=self.format, limit=self.limit)


@Parameter(name="*", group=_MODEL)
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model is loaded, and how.

    Parameters
    ----------
    model
        Folder of a Hugging Face model or of an adapter, or a model's name on the hub.
    revision
        Revision of a model on the hub.
    dtype
        auto: bfloat16 on a GPU (float16 on one older than Ampere), float32 on a CPU.
    device
        auto, cpu, cuda, cuda:1, mps, or balanced (spread over all GPUs by accelerate).
    """

    model: str
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"

    def load(self, *, compile: bool = False) -> "DeltaAttnMask":
        """The model with its processor, ready to score."""
        from delta_attnmask.scorer import DeltaAttnMask

        options: dict[str, Any] = {"dtype": self.dtype, "device": self.device, "revision": self.revision}
        return DeltaAttnMask.from_pretrained(self.model, compile=compile, **options)


@Parameter(name="*", group=_SPEED)
@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """How the model runs over the rows.

    Parameters
    ----------
    batch_tokens
        Upper bound of rows times longest row in a batch; halved when memory runs out.
    attention
        Which code sums the attention; auto takes the fastest that the model and the device allow.
    workers
        Processes that read images and encode; if not given, none on a CPU and up to 8 beside a GPU. 0 encodes in the
        process itself.
    """

    batch_tokens: int = 8192
    attention: Literal["auto", "plain", "tiled", "fused", "triton"] = "auto"
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise SettingsError(f"workers={self.workers}: expected 0 or more")


@Parameter(name="*", group=_MASKING)
@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """Single mask settings; each changes what `--settings` gives.

    Parameters
    ----------
    queries
        Whose attention counts.
    tokens
        Which tokens may be masked.
    fraction
        Share of those that is masked, 0 to 1.
    block
        Decoder block whose output is masked; negative counts from the end.
    replacement
        What a masked state becomes.
    order
        Which tokens are masked first.
    exclude
        Tokens that are never masked.
    """

    queries: Queries | None = None
    tokens: Tokens | None = None
    fraction: float | None = None
    block: int | None = None
    replacement: Replacement | None = None
    order: Order | None = None
    exclude: Exclude | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Those that were given, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


NO_MASK_OPTIONS = MaskOptions()
COMPUTE_DEFAULTS = ComputeOptions()


def split_names(texts: Sequence[str] | None) -> list[str] | None:
    """Names that were given one by one or with commas between them; None where none was given."""
    return None if texts is None else [name for text in texts for name in text.split(",") if name]


def mask_of(settings: Mapping[str, Any]) -> MaskSettings:
    """The mask settings among all that a run's manifest records."""
    names = {field.name for field in fields(MaskSettings)}
    return MaskSettings.from_dict({name: value for name, value in settings.items() if name in names})
