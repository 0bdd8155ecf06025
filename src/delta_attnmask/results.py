"""`Scores`: what scoring gave, one line for each row of the input, in memory. No torch here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from delta_attnmask.calibration import FILE, Calibration
from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.manifest import Manifest
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.candidates import with_ranking
from delta_attnmask.selecting.selector import Background, select_rows
from delta_attnmask.selection import Budget, Selection

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Scores:
    """The scores of a data set, and what they were made with.

    stored: the columns of a run folder's scores, rows in the order of the input.
    manifest: model, settings and data. calibration: what the settings come from, if anything.
    side_tables: `sweep` and `embeddings`, if they were asked for; their column `row` says where a line belongs.
    """

    stored: pa.Table
    manifest: Manifest
    calibration: Calibration | None = None
    side_tables: Mapping[str, pa.Table] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def form(self) -> str:
        """The column that ranks the rows."""
        return str(self.manifest.settings.get("form", "delta"))

    @property
    def table(self) -> pa.Table:
        """The scores with the column `score`, which ranks the rows, higher is better; null where a row failed.

        The others: row, id, key, source, status, reason, reason_code, question, answer_type, n_turns, n_images,
        n_tokens, n_image_tokens, n_answer_tokens, loss, masked_loss and delta (nats per answer token), further scores,
        and columns of the data that were asked for.
        """
        return with_ranking(self.stored, self.form)

    @property
    def background(self) -> Background:
        """What `select_rows` needs beside the table."""
        report = None if self.calibration is None else self.calibration.report
        return Background.of(self.manifest.settings, report, self._embed)

    def to_pandas(self) -> "pd.DataFrame":
        """The table as a pandas data frame; SettingsError without pandas."""
        try:
            import pandas  # noqa: F401 - pyarrow imports it by itself, and says less where it is missing
        except ImportError as error:
            raise SettingsError("to_pandas() needs pandas: pip install pandas") from error
        return self.table.to_pandas()

    def select(
        self,
        keep: str | float | Budget,
        *,
        by: str | None = None,
        rule: str = "auto",
        quota_by: str | Sequence[str] = "auto",
        drop_duplicates: bool | NDArray[np.int64] = False,
        near_duplicates: float | None = None,
        **options: Any,
    ) -> Selection:
        """Keep the best rows; defaults and rules are those of `select_rows` and of the command `select`."""
        options |= {"drop_duplicates": drop_duplicates, "near_duplicates": near_duplicates}
        return select_rows(self, keep, by=by, rule=rule, quota_by=quota_by, **options)

    def save(self, folder: str | Path) -> None:
        """Write a run folder, as `delta-attnmask score --out` does; ArtifactError where it holds another run."""
        with RunFolder.start(folder, self.manifest) as run:
            run.write_all(self.stored, self.side_tables)
            if self.calibration is not None:
                if self.calibration.adapters:
                    self.calibration.save(run.path)
                else:
                    run.write_json(FILE, dict(self.calibration.report), indent=1)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a complete run folder, also by URL; ArtifactError if it is none or a row is missing."""
        run = RunFolder.open(folder)
        sides = {name: run.read_side(name) for name in ("sweep", "embeddings")}
        return cls(
            run.read_scores(),
            run.manifest,
            Calibration.load(run.path) if FILE in run.files.names() else None,
            {name: table for name, table in sides.items() if table is not None},
        )

    def _embed(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """The vectors of some input rows, in their order; `[n_rows, width]`."""
        if (table := self.side_tables.get("embeddings")) is None:
            raise SettingsError("these scores have no embeddings; score with embeddings=True")
        column = table["embedding"].combine_chunks()
        vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), column.type.list_size)
        held = table["row"].to_numpy()
        if not np.isin(rows, held).all():
            raise ArtifactError("the embeddings lack rows that have a score")
        found: NDArray[np.float16] = vectors[np.searchsorted(held, rows)]
        return found
