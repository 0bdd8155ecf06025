"""What a calibration found and why rows failed, as the report's template reads it. No torch here."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from delta_attnmask.calibration import FILE, Calibration
from delta_attnmask.reading.faults import generalise
from delta_attnmask.runs import RunFolder
from delta_attnmask.selection import Selection

SETTINGS = ("queries", "tokens", "fraction", "block", "order", "replacement", "exclude")
_BLIND = 0.6  # AUROC below which the chosen score doesn't see a kind
_KIN = 0.9  # rank correlation with low loss from which a reader must hear of it
_MAX_REASONS = 50


@dataclass(frozen=True)
class Findings:
    """A calibration. is_covered: whether it covers the score that ranks the rows. AUROCs are None where unknown."""

    calibration: Calibration
    is_covered: bool

    @property
    def report(self) -> Mapping[str, Any]:
        """What calibration.json holds."""
        return self.calibration.report

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of defects that were planted."""
        return tuple(self.report["kinds"])

    @property
    def aurocs(self) -> Mapping[str, float | None]:
        """Of the chosen score, by kind."""
        return {kind: self.report["chosen"]["auroc"].get(kind) for kind in self.kinds}

    @property
    def intervals(self) -> Mapping[str, tuple[float | None, float | None]]:
        """95 %, of these AUROCs."""
        return {kind: (one["chosen"]["low"], one["chosen"]["high"]) for kind, one in self.report["kinds"].items()}

    @property
    def seen(self) -> tuple[str, ...]:
        """The kinds that the chosen score sees: some score tells them from good rows, and this one does too."""
        return tuple(kind for kind in self.report["visible_kinds"] if (self.aurocs[kind] or 0.0) >= _BLIND)

    @property
    def extremes(self) -> tuple[str, str] | None:
        """The kinds that the chosen score tells best and worst of those that any score tells; None without any."""
        known = {kind: auroc for kind in self.report["visible_kinds"] if (auroc := self.aurocs[kind]) is not None}
        return (max(known, key=known.__getitem__), min(known, key=known.__getitem__)) if known else None

    @property
    def is_low_loss(self) -> bool:
        """Whether the score orders rows almost as low loss alone does."""
        return (self.report["low_loss"]["spearman"] or 0.0) >= _KIN

    @property
    def tried(self) -> list[list[object]]:
        """Every score, its settings as `SETTINGS`, its value, and its AUROC by kind; the best first."""
        ordered = sorted(self.report["candidates"], key=lambda one: -(one["value"] or 0.0))
        return [
            [
                one["form"],
                *((one["settings"] or {}).get(name) for name in SETTINGS),
                one["value"],
                *(one["auroc"].get(kind) for kind in self.kinds),
            ]
            for one in ordered
        ]


def find_findings(run: RunFolder, selection: Selection | None, calibration: Path | None) -> Findings | None:
    """The calibration in a folder or file, by default the run's own; None where the run has none.

    Raises ArtifactError for what is no calibration, and where a named one is missing.
    """
    if calibration is None and not (run.path / FILE).exists():
        return None
    found, made_with = Calibration.load(calibration or run.path), run.manifest.settings
    is_covered = (
        selection is not None
        and selection.column == found.form
        and all(made_with.get(name) == value for name, value in found.report["settings"].items())
    )
    return Findings(found, is_covered)


def count_reasons(scores: pa.Table) -> list[tuple[str, int, str]]:
    """Why rows failed: the reason without names and numbers, rows, and the first full text, most frequent first."""
    failed = scores["reason"].filter(pc.equal(scores["status"], "failed"))
    n_rows, examples = Counter[str](), dict[str, str]()
    for one in pc.value_counts(failed).to_pylist():
        reason = generalise(one["values"])
        n_rows[reason] += one["counts"]
        examples.setdefault(reason, one["values"])
    return [(reason, n, examples[reason][:200]) for reason, n in n_rows.most_common(_MAX_REASONS)]
