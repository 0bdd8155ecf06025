"""The answer in words and four numbers. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delta_attnmask.reporting.calibration_figures import Findings
from delta_attnmask.reporting.standing import Standing
from delta_attnmask.reporting.words import (
    COLUMNS,
    count,
    join_names,
    name_form,
    name_kind,
    write_percent,
    write_rate,
    write_seconds,
    write_share,
)
from delta_attnmask.runs import RunFolder
from delta_attnmask.selection import Selection

_KIN = 0.9  # rank correlation with low loss from which a reader must hear of it
_MUCH_DISTORTION = 0.1  # above chance


@dataclass(frozen=True)
class KeyFigure:
    """One number: what it counts, and what it means."""

    name: str
    number: str
    text: str


@dataclass(frozen=True)
class Headline:
    """question, answers: sentences. figures: four. warnings: what the reader must know before trusting the rest."""

    question: str
    answers: tuple[str, ...]
    figures: tuple[KeyFigure, ...]
    warnings: tuple[str, ...]


def write_headline(
    run: RunFolder,
    standing: Standing | None,
    findings: Findings | None,
    audit: Mapping[str, Any] | None,
    n_failed: int,
    *,
    is_written: bool,
) -> Headline:
    """What was scored, what is kept, what the score can and can't see, and what that costs.

    standing, audit: None if no row can be kept. findings: of the very score that ranks the rows; None without any.
    is_written: whether a selection was written, or is only what `select` would keep.
    """
    name, n_rows = Path(run.manifest.data).name, run.manifest.n_rows
    model = "/".join(Path(run.manifest.model).parts[-2:])
    failed = f"{n_failed:,} failed" if n_failed else "none failed"
    scored = KeyFigure("Scored", f"{n_rows - n_failed:,}", f"of {count(n_rows, 'row')}; {failed}")
    if standing is None or audit is None:
        question = f"Why could nothing of {name} be scored?"
        answer = f"None of its {count(n_rows, 'row')} has a score: see the reasons below."
        return Headline(question, (answer,), (scored,), ())
    n_kept, share = len(standing.selection), len(standing.selection) / max(1, len(standing))
    by = f"{write_share(share)} of the scored rows, by {name_form(standing.selection.column)}"
    steps = "of those that all rows take; any choice of as many rows saves the same"
    kept = f"{count(n_kept, 'row')} {'are kept' if is_written else 'would be kept'}"
    answer = (
        f"The model {model} read {count(n_rows - n_failed, 'conversation')}. Of these {kept}: "
        f"{describe_rule(standing.selection)}."
    )
    return Headline(
        _ask(standing.selection, name),
        (answer, _say_sight(findings), *_say_defects(audit), *_say_costs(audit, share)),
        (
            scored,
            KeyFigure("Kept" if is_written else "Would be kept", f"{n_kept:,}", by),
            _sight_figure(findings),
            KeyFigure("Training steps", write_percent(share), steps),
        ),
        tuple(_warn(findings, audit, n_failed / n_rows)),
    )


def _ask(selection: Selection, name: str) -> str:
    budget = str(selection.budget)
    if budget.endswith("%"):
        return f"Which {budget.replace('%', ' %')} of {name} is worth training on?"
    return f"Which {count(len(selection), 'row')} of {name} {'is' if len(selection) == 1 else 'are'} worth training on?"


def describe_rule(selection: Selection) -> str:
    """How rows are chosen, as the end of a sentence."""
    score, columns = name_form(selection.column), selection.quota_by
    of_each = f" of each {join_names([COLUMNS.get(name, name) for name in columns])}" if columns else ""
    skipped = " below the very top" if selection.rule == "band" or selection.options.get("skip_top") else ""
    if selection.rule == "diverse":
        return f"the most different ones among those with a high score ({score}){of_each}"
    return f"those with the highest score ({score}){of_each}{skipped}"


def _sight_figure(findings: Findings | None) -> KeyFigure:
    if findings is None:
        return KeyFigure("Sees", "?", "not calibrated: nobody knows which defects this score finds on this data")
    text = "kinds of planted defects; rows with the others are kept like any"
    return KeyFigure("Sees", f"{len(findings.seen)} of {len(findings.kinds)}", text)


def _say_sight(findings: Findings | None) -> str:
    if findings is None:
        return (
            "This score was not calibrated on this data, so nobody knows whether it prefers good rows: run "
            "`delta-attnmask calibrate`, and look at the samples below before trusting it."
        )
    known = {kind: auroc for kind in findings.visible if (auroc := findings.chosen.aurocs[kind]) is not None}
    if not known:
        return "On planted defects neither this score nor any other beats a coin: don't select by it."
    best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    unseen = [f"“{name_kind(kind)}”" for kind in findings.kinds if kind not in findings.seen]
    blind_to = f" It doesn't see {join_names(unseen)}." if unseen else ""
    return (
        f"Calibration planted {count(len(findings.kinds), 'kind')} of defects in copies of {findings.n_originals:,} "
        f"rows. The score finds “{name_kind(best)}” best (AUROC {known[best]:.2f}; 1 is always, 0.5 a coin toss) and "
        f"“{name_kind(worst)}” worst ({known[worst]:.2f}).{blind_to}"
    )


def _say_defects(audit: Mapping[str, Any]) -> list[str]:
    """What that means for the kept rows. How many rows have a defect is unknown; a fifth stands for it."""
    expected = audit["defects"]["expected"] if audit["defects"] else {}
    n_kept = audit["n_kept"]
    return [
        "If the data's own defects are like the planted ones, and if, say, a fifth of all rows had one, then about "
        f"{round(after * n_kept):,} of the {count(n_kept, 'kept row')} would have one; of as many random rows about "
        f"{round(0.2 * n_kept):,}."
        for before, after in expected.items()
        if before == "20%"
    ]


def _say_costs(audit: Mapping[str, Any], share: float) -> list[str]:
    costs = audit["costs"]
    if costs is None:
        return []
    spent = costs["scoring_s"] + costs["calibration_s"]
    text = f"{'Calibrating and scoring' if costs['calibration_s'] else 'Scoring'} took {write_seconds(spent)}"
    if rate := costs["train_rate"]:
        saved = audit["n_rows"] * costs["epochs"] / rate * (1 - share) - spent
        outcome = f"{'saves' if saved >= 0 else 'loses'} {write_seconds(abs(saved))}"
        return [f"{text}; where training gets through {write_rate(rate)} rows a second, that {outcome} in all."]
    if not spent or share == 1:
        return [f"{text}."]
    below = audit["n_rows"] * (1 - share) * costs["epochs"] / spent
    return [f"{text}, which pays where training gets through fewer than {write_rate(below)} rows a second."]


def _warn(findings: Findings | None, audit: Mapping[str, Any], failed: float) -> list[str]:
    lines = [f"{text[:1].upper()}{text[1:]}." for text in findings.warnings] if findings else []
    lines += _warn_of_kinship(findings) if findings else []
    lines += _warn_of_distortion(audit["mix"]["source and answer_type"], audit["n_kept"])
    if failed > 0.05:
        lines.append(f"{write_share(failed)} of the rows could not be scored: see “Failed rows”.")
    return lines


def _warn_of_distortion(mix: Mapping[str, Any], n_kept: int) -> list[str]:
    """Where the kept rows are of other sources and kinds of answers than all rows, in rows."""
    if mix["distortion"] - mix["distortion_by_chance"] <= _MUCH_DISTORTION:
        return []
    n_others, n_by_chance = (round(mix[name] * n_kept) for name in ("distortion", "distortion_by_chance"))
    text = (
        f"The selection changes the mix of sources and answer types: about {n_others:,} of the "
        f"{count(n_kept, 'kept row')} would have to be exchanged for the kept rows to have the mix of all rows. "
        f"Of rows drawn at random it would be about {n_by_chance:,}."
    )
    return [text]


def _warn_of_kinship(findings: Findings) -> list[str]:
    """Where low loss alone would do."""
    values, spearman = findings.low_loss.get("value", {}), findings.low_loss.get("spearman")
    if not isinstance(spearman, int | float) or spearman < _KIN:
        return []
    ours, low = values.get("chosen"), values.get("low_loss")
    better = isinstance(ours, int | float) and isinstance(low, int | float) and low >= ours
    return [
        f"The score orders rows almost as low loss alone does (rank correlation {spearman:.2f})"
        + (
            ", and low loss finds the planted defects no worse: `select --by low_loss` is the simpler choice."
            if better
            else "."
        )
    ]
