"""Options that several commands share, each as a dataclass whose fields are the options."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cyclopts import Parameter

from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.settings import Exclude, MaskSettings, Order, Queries, Replacement, Tokens


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which rows are read, and how.

    Parameters
    ----------
    data
        Conversations, in any format that `check --help` lists.
    images
        Folder below which the rows' image paths lie.
    limit
        Only the first rows.
    format
        Name of the data's format (`check --help` lists them); recognised by content if not given.
    allow_outside
        Follow absolute image paths, and links that leave the image folder.
    """

    data: Path
    images: Path | None = None
    limit: int | None = None
    format: str | None = None
    allow_outside: bool = False

    def open(self) -> FileRows:
        """The rows, to be read."""
        limits = ImageLimits(allow_outside=self.allow_outside)
        return FileRows(self.data, self.images, image_limits=limits, format=self.format, limit=self.limit)


@Parameter(name="*")
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


def mask_of(settings: Mapping[str, Any]) -> MaskSettings:
    """The mask settings among all that a run's manifest records."""
    names = {field.name for field in fields(MaskSettings)}
    return MaskSettings.from_dict({name: value for name, value in settings.items() if name in names})
