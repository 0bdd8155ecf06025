"""What a calibration found, as the report shows it: scores by kinds of planted defects. No torch here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delta_attnmask.errors import ArtifactError
from delta_attnmask.reporting.drawing import KEPT, LEFT, LINE, MUTED, Chart, drawing, rule_out
from delta_attnmask.reporting.page import Table
from delta_attnmask.reporting.words import name_form, name_kind, name_settings

_FILE = "calibration.json"
_BLIND = 0.6  # AUROC below which the chosen score doesn't see a kind
_MAX_ROWS = 50  # of a table


@dataclass(frozen=True)
class Tried:
    """One candidate: a mask setting with a form, or a score without a mask. aurocs: by kind; None where unknown.

    value: what the rule compares, (2 × worst + mean) / 3.
    """

    form: str
    settings: Mapping[str, Any] | None
    value: float | None
    aurocs: Mapping[str, float | None]

    def __str__(self) -> str:
        return (
            name_form(self.form) if self.settings is None else f"{name_form(self.form)}: {name_settings(self.settings)}"
        )


@dataclass(frozen=True)
class InSource:
    """AUROC in one source: of all seen kinds together, with its 95 % interval, and of each kind. None where unknown."""

    together: float | None
    low: float | None
    high: float | None
    aurocs: Mapping[str, float | None]


@dataclass(frozen=True)
class Findings:
    """kinds: that were planted. visible: those that some score tells from good rows.

    intervals: 95 %, of the chosen score's AUROC. sources: source → how well the chosen score does in it.
    low_loss: the AUROCs' value of the chosen score, of low loss, and their rank correlation.
    """

    chosen: Tried
    kinds: tuple[str, ...]
    visible: tuple[str, ...]
    intervals: Mapping[str, tuple[float | None, float | None]]
    candidates: tuple[Tried, ...]
    sources: Mapping[str, InSource]
    low_loss: Mapping[str, Any]
    n_originals: int
    n_planted: int
    warnings: tuple[str, ...]

    @property
    def seen(self) -> tuple[str, ...]:
        """The kinds that the chosen score sees: some score tells them from good rows, and this one does too."""
        return tuple(kind for kind in self.visible if (self.chosen.aurocs[kind] or 0.0) >= _BLIND)

    def covers(self, column: str, settings: Mapping[str, Any]) -> bool:
        """Whether the figures are of this column under these settings of a run."""
        masked = self.chosen.settings or {}
        return column == self.chosen.form and all(settings.get(name) == value for name, value in masked.items())


def read_findings(path: Path, *, is_required: bool = False) -> Findings | None:
    """The findings of CAL/calibration.json, CAL being a folder or the file; None where there is none.

    Raises ArtifactError for what is no calibration, and where there must be one.
    """
    path = path if path.is_file() else path / _FILE
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        if is_required:
            raise ArtifactError(f"{path} is missing; `delta-attnmask calibrate --out` makes one") from error
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is no calibration: {error!r}; expected what `delta-attnmask calibrate --out` writes"
        ) from error


def kinds_chart(findings: Findings) -> Chart:
    """The chosen score's AUROC for each kind of defect with its interval."""
    aurocs = findings.chosen.aurocs
    kinds = sorted(findings.kinds, key=lambda kind: -(aurocs[kind] or 0.0))
    with drawing(0.34 * len(kinds) + 0.7) as figure:
        axes = figure.subplots()
        axes.axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
        axes.annotate("chance", (0.5, -0.6), (-4, 0), textcoords="offset points", ha="right", va="top", color=MUTED)
        for position, kind in enumerate(kinds):
            colour = KEPT if kind in findings.seen else LEFT
            low, high = findings.intervals[kind]
            if low is not None and high is not None:
                axes.plot([low, high], [position, position], color=colour, linewidth=2, solid_capstyle="round")
            if (auroc := aurocs[kind]) is not None:
                axes.plot([auroc], [position], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(kinds)), [name_kind(kind) for kind in kinds])
        axes.set_ylim(len(kinds) - 0.4, -0.6)
        axes.set_xlim(min(0.35, 0.9 * min(auroc or 0.0 for auroc in aurocs.values())), 1.02)
        axes.set_xlabel("AUROC, with its 95 % interval")
        axes.grid(axis="x", color=LINE, linewidth=0.6)
        axes.tick_params(axis="y", length=0)
        rule_out(axes, "left")
    return Chart(
        "calibration",
        "What the chosen score sees",
        f"{findings.n_planted:,} defective copies were made of {findings.n_originals:,} of your rows. AUROC is the "
        "chance that a row ranks above a defective copy: 1 is always, 0.5 a coin toss, below 0.5 the score prefers the "
        "defect. Blue: kinds that the score sees. Grey: kinds that it doesn't; rows with such a defect are kept like "
        "any others.",
        f"Dots with intervals for {len(kinds)} kinds of planted defects; the table has the numbers.",
        figure,
        ("defect", "seen", "AUROC", "low", "high"),
        [(name_kind(kind), kind in findings.seen, aurocs[kind], *findings.intervals[kind]) for kind in kinds],
    )


def tables_of(findings: Findings) -> list[Table]:
    """Every score and setting that was tried, low loss beside the chosen score, and the chosen score by source."""
    names, low = list(map(name_kind, findings.kinds)), findings.low_loss
    tried = sorted(findings.candidates, key=lambda one: -(one.value or 0.0))
    compared = (("chosen", "the chosen score"), ("low_loss", "low loss alone"), ("together", "the mean of both ranks"))
    return [
        (
            "Which score sees which defect (AUROC)",
            ("score: whose attention counts → which tokens are masked, share, block", "value", *names),
            [(str(one), one.value, *(one.aurocs[kind] for kind in findings.kinds)) for one in tried],
        ),
        (
            "Against low loss",
            ("score", "value", "mean AUROC"),
            [(title, *(low.get(which, {}).get(name) for which in ("value", "mean_auroc"))) for name, title in compared],
        ),
        (
            "The chosen score in each source (AUROC)",
            ("source", "all seen", "low", "high", *names),
            [
                (source, found.together, found.low, found.high, *(found.aurocs[kind] for kind in findings.kinds))
                for source, found in list(findings.sources.items())[:_MAX_ROWS]
            ],
        ),
    ]


def _parse(report: Mapping[str, Any]) -> Findings:
    kinds = tuple(report["kinds"])
    return Findings(
        chosen=_tried(report["chosen"], kinds),
        kinds=kinds,
        visible=tuple(kind for kind in kinds if kind in report["visible_kinds"]),
        intervals={
            kind: (_number(one["chosen"]["low"]), _number(one["chosen"]["high"]))
            for kind, one in report["kinds"].items()
        },
        candidates=tuple(_tried(one, kinds) for one in report["candidates"]),
        sources={str(source): _in_source(found, kinds) for source, found in report["sources"].items()},
        low_loss=dict(report["low_loss"]),
        n_originals=int(report["n_originals"]),
        n_planted=int(report["n_planted"]),
        warnings=tuple(map(str, report["warnings"])),
    )


def _tried(one: Mapping[str, Any], kinds: tuple[str, ...]) -> Tried:
    return Tried(
        form=str(one["form"]),
        settings=None if one["settings"] is None else dict(one["settings"]),
        value=_number(one["value"]),
        aurocs={kind: _number(one["auroc"].get(kind)) for kind in kinds},
    )


def _in_source(found: Mapping[str, Any], kinds: tuple[str, ...]) -> InSource:
    """Of a source's figures; the first schema had a number for each kind and no more."""
    if "together" not in found:
        return InSource(None, None, None, {kind: _number(found.get(kind)) for kind in kinds})
    together, low, high = (_number(found["together"][name]) for name in ("auroc", "low", "high"))
    return InSource(together, low, high, {kind: _number(found["kinds"].get(kind, {}).get("auroc")) for kind in kinds})


def _number(value: object) -> float | None:
    """Raises TypeError or ValueError for what is neither a number nor null."""
    return None if value is None else float(value)  # type: ignore[arg-type]
