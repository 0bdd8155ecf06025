"""What a calibration found and why rows failed, as the report's template reads it. No torch here."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from delta_attnmask.calibration import FILE, Calibration, Candidate
from delta_attnmask.reading.faults import generalise
from delta_attnmask.runs import RunFolder
from delta_attnmask.selection import Selection
from delta_attnmask.settings import MaskSettings

_KIN = 0.9  # rank correlation with low loss from which a reader must hear of it
_MAX_REASONS = 50


@dataclass(frozen=True)
class Findings:
    """A calibration.

    is_covered: whether it covers the score that ranks the rows. report: what calibration.json holds.
    kinds: of defects that were planted. aurocs: of the chosen score, by kind, None where unknown; intervals: 95 %.
    seen: the kinds that the chosen score sees.
    extremes: of these, those that it tells best and worst; None without any.
    """

    calibration: Calibration
    is_covered: bool
    report: Mapping[str, Any]
    kinds: tuple[str, ...]
    aurocs: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float | None, float | None]]
    seen: tuple[str, ...]
    extremes: tuple[str, str] | None

    @property
    def is_low_loss(self) -> bool:
        """Whether the score orders rows almost as low loss alone does."""
        return (self.report["low_loss"]["spearman"] or 0.0) >= _KIN

    @property
    def tried(self) -> list[list[object]]:
        """Every score with its settings, the planted copies that it keeps, and its AUROC by kind; the best first."""
        return [
            [_name(one), one["copies_kept"], *(one["auroc"].get(kind) for kind in self.kinds)]
            for one in sorted(
                self.report["candidates"], key=lambda one: (one["copies_kept"] is None, one["copies_kept"])
            )
        ]


def find_findings(run: RunFolder, selection: Selection | None, calibration: Path | None) -> Findings | None:
    """The calibration in a folder or file, by default the run's own; None where the run has none.

    Raises ArtifactError for what is no calibration, and where a named one is missing.
    """
    if calibration is None and not (run.path / FILE).exists():
        return None
    found, made_with = Calibration.load(calibration or run.path), run.manifest.settings
    report = found.report
    is_covered = selection is not None and found.covers(selection.column, made_with)
    aurocs = {kind: report["chosen"]["auroc"].get(kind) for kind in report["kinds"]}
    intervals = {kind: (one["chosen"]["low"], one["chosen"]["high"]) for kind, one in report["kinds"].items()}
    known = {kind: aurocs[kind] for kind in report["visible_kinds"] if aurocs[kind] is not None}
    seen = tuple(known)
    extremes = (max(known, key=known.__getitem__), min(known, key=known.__getitem__)) if known else None
    return Findings(found, is_covered, report, tuple(aurocs), aurocs, intervals, seen, extremes)


def count_reasons(scores: pa.Table) -> list[tuple[str, int, str]]:
    """Why rows failed: the reason without names and numbers, rows, and the first full text, most frequent first."""
    failed = scores["reason"].filter(pc.equal(scores["status"], "failed"))
    n_rows, examples = Counter[str](), dict[str, str]()
    for one in pc.value_counts(failed).to_pylist():
        reason = generalise(one["values"])
        n_rows[reason] += one["counts"]
        examples.setdefault(reason, one["values"])
    return [(reason, n, examples[reason][:200]) for reason, n in n_rows.most_common(_MAX_REASONS)]


def _name(candidate: Mapping[str, Any]) -> str:
    settings = candidate["settings"]
    return str(Candidate(candidate["form"], settings and MaskSettings.from_dict(settings)))
