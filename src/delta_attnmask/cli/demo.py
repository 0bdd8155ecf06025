"""`delta-attnmask demo`: the whole job on the data and the model that come with the package."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.cli.calibrate import describe
from delta_attnmask.cli.tables import print_table
from delta_attnmask.derived import derive, derived_names
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.selecting.select import select_rows
from delta_attnmask.selection import Budget

if TYPE_CHECKING:
    import pyarrow as pa

    from delta_attnmask.settings import Preset

_KEEP = Budget.parse("20%")
_RANDOM_SEEDS = 100


def demo(*, out: Path = Path("demo-run"), export: Path | None = None, limit: int | None = None) -> int:
    """Calibrate, score and select on the embedded data, and hold the outcome against its known defects.

    Parameters
    ----------
    out
        Folder for the data, the run and the selection. Started again, the demo goes on there.
    export
        Only write the embedded model and data into this folder.
    limit
        Only the first rows of the pool.
    """
    from delta_attnmask.embedded import export as export_embedded

    if export is not None:
        print(f"Wrote model/, images/, pool.json, test.json and defects.json into {export_embedded(export)}")
        return 0
    started = time.monotonic()
    home = export_embedded(out / "data")
    scores = _score(home, out / "run", limit)
    defects = {int(row): kind for row, kind in json.loads((home / "defects.json").read_text()).items()}
    _report(scores, np.isin(scores["row"].to_numpy(), list(defects)), out)
    print(f"{time.monotonic() - started:.0f} s in all. The planted defects are known here; scoring never reads them.")
    return 0
