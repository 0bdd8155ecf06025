"""Options that several commands share, each as a dataclass whose fields are the options."""

from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.reading.images import ImageLimits


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

    def open(self) -> Dataset:
        """The rows, to be read."""
        limits = ImageLimits(allow_outside=self.allow_outside)
        return Dataset(self.data, self.images, image_limits=limits, format=self.format, limit=self.limit)
