"""Which settings a run works with: calibrated on the spot, read from a calibration, or a preset."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delta_attnmask.calibration import FILE, Calibration, read_preset, refuse_another_calibration
from delta_attnmask.errors import SettingsError, TooLittleDataError
from delta_attnmask.settings import PRESETS, MaskSettings, Preset

if TYPE_CHECKING:
    from delta_attnmask.modeling.load import LoadedModel
    from delta_attnmask.reading.rows import Rows

FALLBACK = "relative"  # where nothing can be calibrated

Wanted = str | Path | MaskSettings | Preset | Calibration


def choose_preset(
    wanted: Wanted,
    changes: Mapping[str, Any],
    loaded: "LoadedModel | None",
    rows: "Rows",
    folder: Path | None,
    calibrate: Callable[[], Calibration] | None,
    notify: Callable[[str], None],
) -> tuple[Preset, Calibration | None]:
    """The settings and the form of a run, and the calibration that they come from, if any.

    wanted: "auto", the name of a preset, a folder that `calibrate` made, or what these come to.
    changes: single mask settings that are given beside it.
    loaded: None where the model is elsewhere.
    folder: where the calibration that was used is kept, for `select` and for resuming; None keeps none.
    calibrate: None where nothing may be calibrated, as for one of several processes.
    notify: gets what the user should know, a line each.
    """
    preset, calibration = _choose(wanted, loaded, rows, folder, calibrate, notify)
    changed = replace(preset, mask=replace(preset.mask, **changes))
    if calibration is not None and changed.mask != preset.mask:
        names = ", ".join(name for name in changes if changes[name] != getattr(preset.mask, name))
        if not changed.mask.fraction:
            raise SettingsError(
                f"{names}: the calibration chose a score that masks nothing; give --fraction too, or a preset such "
                "as --settings relative"
            )
        if not preset.mask.fraction:
            return changed, calibration  # what ranks the rows reads no Δ, so its figures hold
        notify(f"settings: {names} override the calibrated setting, so the calibration's figures don't hold for it")
        changed = replace(changed, calibration="")
    return changed, calibration


def _choose(
    wanted: Wanted,
    loaded: "LoadedModel | None",
    rows: "Rows",
    folder: Path | None,
    calibrate: Callable[[], Calibration] | None,
    notify: Callable[[str], None],
) -> tuple[Preset, Calibration | None]:
    if isinstance(wanted, Preset):
        return wanted, None
    if isinstance(wanted, MaskSettings):
        return next((p for p in PRESETS.values() if p.mask == wanted), Preset(wanted, PRESETS[FALLBACK].form)), None
    if wanted == "auto":
        return _calibrated(loaded, rows, folder, calibrate, notify)
    if isinstance(wanted, Calibration):
        _use(wanted, "the calibration", loaded, rows, folder, notify)
        return wanted.preset, wanted
    preset, found = read_preset(wanted, ["auto"])
    if found is not None:
        _use(found, str(wanted), loaded, rows, folder, notify)
    return preset, found


def _use(
    found: Calibration,
    where: str,
    loaded: "LoadedModel | None",
    rows: "Rows",
    folder: Path | None,
    notify: Callable[[str], None],
) -> None:
    """Take a calibration that was made elsewhere, with a warning where it is of another model or other data.

    The data is compared only for a run with a folder, which needs its fingerprint anyway.
    """
    if changed := found.differences(made_with(loaded, None if folder is None else rows)):
        notify(
            f"WARNING: {where} was calibrated on something else, so its choice and its figures may not hold here: "
            f"{'; '.join(changed)}"
        )
    if folder is None or (folder / "manifest.json").exists():
        return
    if not ((folder / FILE).exists() and Calibration.load(folder).sha256 == found.sha256):
        refuse_another_calibration(folder, made_with(loaded, rows))
        found.save(folder)


def _calibrated(
    loaded: "LoadedModel | None",
    rows: "Rows",
    folder: Path | None,
    calibrate: Callable[[], Calibration] | None,
    notify: Callable[[str], None],
) -> tuple[Preset, Calibration | None]:
    """The calibration in `folder` if the run has begun or it is of this model and data; a new one if there is none.

    Raises ArtifactError where the folder holds that of another model or other data.
    """
    has_begun = folder is not None and (folder / "manifest.json").exists()  # the manifest refuses what doesn't fit
    if folder is not None and not has_begun and calibrate is not None:
        refuse_another_calibration(folder, made_with(loaded, rows))
    if folder is not None and (folder / FILE).exists() and (has_begun or calibrate is not None):
        found = Calibration.load(folder)
        notify(f"settings: {found.candidate}, from {folder / FILE}")
        return found.preset, found
    if has_begun:
        return PRESETS[FALLBACK], None  # what the earlier start fell back to
    if calibrate is None:
        raise SettingsError(
            "--shard and --engine ray don't calibrate: run `delta-attnmask calibrate … --out CAL` once and give "
            "--settings CAL, or give --settings relative or paper"
        )
    try:
        found = calibrate()
    except TooLittleDataError as error:
        notify(f"settings: not calibrated ({error}); using the preset {FALLBACK!r}")
        return PRESETS[FALLBACK], None
    if folder is not None:
        found.save(folder)
    return found.preset, found


def made_with(loaded: "LoadedModel | None" = None, rows: "Rows | None" = None) -> dict[str, Any]:
    """What shows whether a calibration belongs to this model and this data; only of those given."""
    from delta_attnmask.modeling.load import model_fingerprint

    model = loaded and {
        "model": loaded.name,
        "model_fingerprint": model_fingerprint(loaded.model),
        "dtype": str(loaded.dtype).removeprefix("torch."),
    }
    data = rows and {
        "data": rows.name,
        "input": {"sha256": rows.fingerprint.sha256, "n_bytes": rows.fingerprint.n_bytes},
    }
    return (model or {}) | (data or {})
