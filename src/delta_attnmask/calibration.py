"""A calibration: the score that suits a model and a data set, and what was found with it. No torch here."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Self

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.judge import Judge
from delta_attnmask.settings import PRESETS, MaskSettings, Preset
from delta_attnmask.storage import write_text_atomically

FILE = "calibration.json"
KEPT = "calibrating"  # the folder of what a calibration has scored that isn't done
ADAPTER_WEIGHTS = "adapter_model.safetensors"
SCHEMA = 4
_MAX_SOURCES = 12  # that `describe` names; the report has all


@dataclass(frozen=True)
class Candidate:
    """A score that could order the rows: column `form` under `settings`; rivals have none."""

    form: str
    settings: MaskSettings | None = None

    @property
    def is_control(self) -> bool:
        return self.settings is not None and self.settings.order != "most"

    @property
    def tail(self) -> int:
        """How many blocks are run again; the price."""
        return 0 if self.settings is None else -1 - self.settings.block

    def __str__(self) -> str:
        if self.settings is None:
            return self.form
        s = self.settings
        order = "" if s.order == "most" else f"{s.order} tokens, "
        more = "" if s.replacement == "zero" else f", replacement {s.replacement}"
        more += "" if s.exclude == "none" else f", exclude {s.exclude}"
        masked = f"queries {s.queries}, tokens {s.tokens}, fraction {s.fraction:g}, block {s.block}"
        return f"{self.form} ({order}{masked}{more})"


class Verdict(StrEnum):
    """The outcome of a calibration.

    A score is better than chance where its planted copies in the highest fifth, with two standard errors added, stay
    below those of chance.
    """

    SELECT = "select"  # the chosen score is better than chance
    LOW_LOSS = "low_loss"  # so is low loss, and nothing does better
    BLIND = "blind"  # the chosen score is, but no score finds wrong images
    KEEP_ALL = "keep_all"  # no score is
    TOO_FEW = "too_few"  # there was too little to calibrate on

    @property
    def is_no(self) -> bool:
        """Whether it advises against selecting."""
        return self == Verdict.KEEP_ALL


TOO_FEW_SENTENCE = "too few rows to tell whether selecting pays here; a preset orders them, and nothing vouches for it"


@dataclass(frozen=True)
class Calibration:
    """Which score was chosen, and why.

    report: what calibration.json holds, plain JSON values. folder: where it is; there lie the adapters, if it has any.
    """

    report: Mapping[str, Any]
    folder: Path | None = field(default=None, compare=False)

    @property
    def settings(self) -> MaskSettings:
        return MaskSettings.from_dict(self.report["settings"])

    @property
    def form(self) -> str:
        """The column that orders the rows, such as `relative_delta`."""
        return str(self.report["form"])

    @property
    def judge(self) -> Judge | None:
        """What gives the column `p_good`; None where another column orders the rows."""
        return Judge.from_dict(self.report["judge"]) if self.report.get("judge") else None

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.form, self.settings if self.settings.fraction else None)

    @property
    def preset(self) -> Preset:
        """What a run takes from it."""
        return Preset(self.settings, self.form, self.sha256, self.judge, self.adapters)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The folders of the two adapters that the model scores with; none for the model as it is.

        Raises ArtifactError where they aren't those that were calibrated.
        """
        folders = []
        for name, wanted in self.report.get("adapters", {}).items():
            if self.folder is None or ".." in Path(name).parts or Path(name).is_absolute():
                raise ArtifactError(f"the adapter {name} isn't below the folder of its calibration")
            folders.append(str(self.folder / name))
            if adapter_sha256(folders[-1]) != wanted:
                raise ArtifactError(f"{folders[-1]} isn't the adapter that was calibrated; calibrate into a new folder")
        return tuple(folders)

    @property
    def _copies_kept(self) -> tuple[float, float]:
        """Of the chosen score, with its standard error; those of chance where they aren't known."""
        kept, error = (self.report.get("chosen", {}).get(name) for name in ("copies_kept", "standard_error"))
        return 1.0 if kept is None else float(kept), float(error or 0.0)

    @property
    def verdict(self) -> Verdict:
        """Whether selecting by the chosen score is better than drawing rows at random, by the planted copies alone."""
        kept, error = self._copies_kept
        if kept + 2 * error >= 1:
            return Verdict.KEEP_ALL
        if not self.report.get("kinds", {}).get("image_swapped", {}).get("is_seen_by_any", True):
            return Verdict.BLIND
        return Verdict.LOW_LOSS if self.form == "low_loss" else Verdict.SELECT

    @property
    def verdict_sentence(self) -> str:
        """The verdict in one sentence, with its figure."""
        kept, error = self._copies_kept
        figure = f"a kept fifth has {kept:.2f} ± {error:.2f} of the planted copies that chance would keep"
        if self.verdict == Verdict.KEEP_ALL:
            return f"no better than random rows: {figure}; keep all the data"
        if self.verdict == Verdict.BLIND:
            auroc = self.report["kinds"]["image_swapped"]["best_auroc"]
            return (
                f"this model can't see wrong images (best AUROC {auroc:.2f}, 0.5 is chance), so rows are selected by "
                f"their text alone: {figure}"
            )
        if self.verdict == Verdict.LOW_LOSS:
            return f"low loss alone does as well as anything here: {figure}"
        masking = "masking adds to it" if self.settings.fraction else "masking adds nothing to it, so nothing is masked"
        return f"selecting pays here: {figure}; {masking}"

    def covers(self, column: str, made_with: Mapping[str, Any]) -> bool:
        """Whether its figures are those of a run's column. made_with: the settings in the run's manifest."""
        same = [made_with.get(name) == value for name, value in self.report["settings"].items()]
        is_same_judge = self.judge is None or made_with.get("judge") == self.judge.sha256
        is_same_model = list(self.report.get("adapters", {}).values()) == list(made_with.get("adapters", ()))
        is_same_score = is_same_judge and is_same_model and (not self.settings.fraction or all(same))
        return column == self.form and is_same_score

    @property
    def warnings(self) -> tuple[str, ...]:
        """What no setting could see, in plain words."""
        return tuple(map(str, self.report.get("warnings", ())))

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the report, the same before it is written and when it is read back."""
        return sha256(json.dumps(dict(self.report), sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def save(self, folder: str | Path) -> Path:
        """Write FOLDER/calibration.json, whole or not at all, after its adapters; the folder is created if missing.

        What was kept there while it was made is removed.
        Raises ArtifactError where the system refuses.
        """
        path = Path(folder) / FILE
        try:
            for name, source in zip(self.report.get("adapters", {}), self.adapters, strict=True):
                if Path(source).resolve() != (path.parent / name).resolve():
                    shutil.copytree(source, path.parent / name, dirs_exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"{path.parent}: the adapters can't be written: {error}") from error
        write_text_atomically(path, json.dumps(dict(self.report), indent=1, ensure_ascii=False) + "\n")
        shutil.rmtree(path.parent / KEPT, ignore_errors=True)
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote into a folder, or the file in it; ArtifactError if there is none."""
        path = Path(folder)
        path = path / FILE if path.is_dir() else path
        try:
            found = cls(json.loads(path.read_text(encoding="utf-8")), path.parent)
            _ = found.preset
            if found.report.get("schema", SCHEMA) != SCHEMA:
                raise ValueError("it was made by another version; calibrate again")
            return found
        except FileNotFoundError as error:
            raise ArtifactError(f"{path} is missing; `delta-attnmask calibrate --out {folder}` makes one") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SettingsError) as error:
            raise ArtifactError(f"{path} is no calibration: {error}") from error

    def describe(self) -> str:
        """The outcome in a few lines: the choice, what it is compared with, each kind of defect, sources, warnings."""
        report = self.report
        rows = f"{report['n_originals']} rows and {report['n_planted']} planted copies"
        lines = [
            f"calibrated in {report['seconds']} s on {rows}",
            f"chosen: {self.candidate}" + ("" if self.settings.fraction else ", without a mask"),
            "planted copies in the highest fifth, on rows and kinds of defects that were held out (0 none, 1 chance):",
        ]
        for way in report["ways"]:
            note = "  chosen" if way["is_chosen"] else f"  ± {way['standard_error']:.2f} from the chosen one"
            lines.append(f"  {way['name']:24} {way['copies_kept']:.2f}{note}")
        for one in report.get("rounds", {}).get("tried", ())[1:]:
            taken = "taken" if one["is_taken"] else "not taken"
            gain = f"mean AUROC {one['gain']:+.3f} ± {one['standard_error']:.3f}"
            lines.append(f"round {one['round']} of learning from trusted rows: {gain}, {taken}")
        if self.judge is not None:
            weights = ", ".join(f"{feature.column} {feature.weight:+.2f}" for feature in self.judge.features)
            lines.append(f"the judge's weights, in log-odds for one standard deviation: {weights}")
        lines.append("AUROC on the same (0.5 is chance), with 95 % interval:")
        for kind, one in report["kinds"].items():
            seen = "" if one["is_visible"] else "  not seen"
            lines.append(f"  {kind:24} {_with_interval(one['chosen'])}{seen}")
        by_source = [f"{name or '(none)'} {_with_interval(one['together'])}" for name, one in report["sources"].items()]
        if 1 < len(by_source) <= _MAX_SOURCES:
            lines.append(f"by source, all kinds that are seen: {'; '.join(by_source)}")
        lines += [f"WARNING: {warning}" for warning in self.warnings]
        return "\n".join([*lines, f"verdict: {self.verdict_sentence}"])

    def differences(self, made_with: Mapping[str, Any]) -> list[str]:
        """What was another thing when it was made: the model, its precision, the data.

        made_with: as `calibrator.made_with` says of a model, of data, or of both.
        """
        about = {"model": _about_model, "data": _about_data}
        pairs = {name: (short(self.report), short(made_with)) for name, short in about.items() if name in made_with}
        return [
            f"{name}: {_name(then)} there, {_name(now)} now" for name, (then, now) in pairs.items() if then[2] != now[2]
        ]


def judge_calibration(calibration: Calibration | None) -> dict[str, str]:
    """`verdict` and `verdict_sentence`, for JSON. calibration: None where there was too little to calibrate on."""
    if calibration is None:
        return {"verdict": Verdict.TOO_FEW, "verdict_sentence": TOO_FEW_SENTENCE}
    return {"verdict": calibration.verdict, "verdict_sentence": calibration.verdict_sentence}


def read_preset(wanted: str | Path, others: Sequence[str] = ()) -> tuple[Preset, Calibration | None]:
    """The preset of that name, or that of the calibration in a folder; SettingsError where there is neither.

    others: names that the caller knows beside these, for the message.
    """
    if str(wanted) in PRESETS:
        return PRESETS[str(wanted)], None
    if Path(wanted).exists():
        found = Calibration.load(wanted)
        return found.preset, found
    names = ", ".join([*others, *PRESETS])
    raise SettingsError(f"settings={str(wanted)!r}: expected {names}, or a folder that `calibrate` made")


def adapter_sha256(folder: str | Path) -> str:
    """Hex SHA-256 of an adapter's weights, which have to be safetensors; ArtifactError where there are none."""
    path = Path(folder) / ADAPTER_WEIGHTS
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{path} can't be read: {error}; calibrate again into a new folder") from error


def refuse_another_calibration(folder: str | Path, made_with: Mapping[str, Any]) -> None:
    """Raise ArtifactError where a folder holds the calibration of another model or other data, and say what differs.

    Existing scores may depend on it, so it isn't replaced.
    """
    path = Path(folder) / FILE
    if path.exists() and (changed := Calibration.load(path).differences(made_with)):
        raise ArtifactError(
            f"{path} was calibrated on something else and isn't replaced; choose another folder, or remove that file. "
            f"What differs: {'; '.join(changed)}"
        )


def _about_model(report: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return report.get("model"), report.get("dtype"), report.get("model_fingerprint")


def _about_data(report: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return report.get("data"), "SHA-256", report.get("input", {}).get("sha256")


def _name(thing: tuple[Any, Any, Any]) -> str:
    """A short name of a model or data set that differs from others of the same name."""
    name, kind, fingerprint = thing
    return f"{name} ({kind} {str(fingerprint)[:8]})"


def _with_interval(found: Mapping[str, Any]) -> str:
    """An AUROC with its interval, where it has either."""
    auroc = "-" if found["auroc"] is None else f"{found['auroc']:.2f}"
    return auroc if found["low"] is None else f"{auroc} ({found['low']:.2f}-{found['high']:.2f})"
