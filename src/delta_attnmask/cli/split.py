"""`delta-attnmask split`: set a test split aside, so that nothing is tested on what was trained on."""

from pathlib import Path

from delta_attnmask.cli.options import DataOptions
from delta_attnmask.cli.terminal import print_data, print_table
from delta_attnmask.errors import SettingsError


def split(
    *, data: DataOptions, test: Path, rest: Path, share: str | None = None, rows: int | None = None, seed: int = 0
) -> None:
    """Set a test split aside, with the data's mix of sources; no image of it stays in the rest.

    Rows are written unchanged, in the input's own format. Rows that share an image stay together, and so do text-only
    rows with the same words. Rows that can't be used go to the rest.

    Args:
        test: File to write the test split to; a folder if the data are several files. Nothing is overwritten.
        rest: File or folder for all other rows.
        share: Share of the rows; by default 10%.
        rows: Number of rows, instead of a share.
        seed: Seed of the draw.
    """
    from delta_attnmask.exporting.splitting import refuse_existing, split_rows, write_split

    if share is not None and rows is not None:
        raise SettingsError("--share and --rows are both given; leave one out")
    refuse_existing(test, rest)
    source = data.open()
    print_data(source)
    found = split_rows(source, rows if rows is not None else share or "10%", seed=seed)
    write_split(source, found, test, rest)
    print_table("Split", ["file", "rows"], [(test, len(found.test)), (rest, len(found.rest))])
