"""Which settings a command works with: calibrated on the spot, read from a calibration, or a preset."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delta_attnmask.errors import SettingsError, TooLittleDataError
from delta_attnmask.settings import PRESETS, Preset

if TYPE_CHECKING:
    from delta_attnmask.calibrating.calibrate import Calibration
    from delta_attnmask.modeling.load import LoadedModel
    from delta_attnmask.reading.rows import Rows
    from delta_attnmask.settings import AttentionBackend

_FALLBACK = "relative"


def choose_settings(
    wanted: str,
    overrides: dict[str, Any],
    loaded: "LoadedModel | None",
    dataset: "Rows",
    out: Path | None,
    batch_tokens: int,
    is_alone: bool = True,
    attention: "AttentionBackend" = "auto",
) -> Preset:
    """Turn `--settings` and the single options beside it into mask settings and a form.

    wanted: "auto", the name of a preset, or a folder that `calibrate` made. overrides: options that were given.
    loaded: None where the model is elsewhere. is_alone: whether no other process chooses for the same run. Nothing is
        calibrated without the one or the other.
    out: where the calibration that was used is kept, for `select` and for starting again; None for a dry run, which
        calibrates nothing and takes the paper's settings instead.
    batch_tokens, attention: as in a scoring plan, for a calibration on the spot.
    """
    if wanted == "auto" and (overrides or out is None):
        preset = PRESETS["paper"]
    elif wanted == "auto" and out is not None:
        preset = _calibrated(loaded if is_alone else None, dataset, out, batch_tokens, attention)
    elif wanted in PRESETS:
        preset = PRESETS[wanted]
    elif Path(wanted).exists():
        preset = _read(Path(wanted), loaded, dataset, out)
    else:
        names = ", ".join(["auto", *PRESETS])
        raise SettingsError(f"settings={wanted!r}: expected {names}, or a folder that `calibrate` made")
    return replace(preset, mask=replace(preset.mask, **overrides))


def _read(folder: Path, loaded: "LoadedModel | None", dataset: "Rows", out: Path | None) -> Preset:
    """The calibration in `folder`, with a warning where it is of another model or other data.

    The data is compared only for a run, which needs its fingerprint anyway.
    """
    from delta_attnmask.calibrating.run import differences, read_calibration

    found = read_calibration(folder)
    if changed := differences(found, loaded, None if out is None else dataset):
        print(
            f"WARNING: {folder} was calibrated on something else, so its choice and its figures may not hold here: "
            f"{'; '.join(changed)}",
            file=sys.stderr,
        )
    if out is not None and not (out / "manifest.json").exists():
        _keep(found, out, loaded, dataset)
    return _preset_of(found)


def _keep(found: "Calibration", out: Path, loaded: "LoadedModel | None", dataset: "Rows") -> None:
    """Keep a calibration in `out`, unless it is there or another one is that isn't of this model and data."""
    from delta_attnmask.calibrating.run import read_calibration, refuse_another_calibration, write_calibration

    if (out / "calibration.json").exists() and read_calibration(out).sha256 == found.sha256:
        return
    refuse_another_calibration(out, loaded, dataset)
    write_calibration(found, out)


def _preset_of(found: "Calibration") -> Preset:
    return Preset(found.settings, found.candidate.form, found.sha256)


def _calibrated(
    loaded: "LoadedModel | None", dataset: "Rows", out: Path, batch_tokens: int, attention: "AttentionBackend"
) -> Preset:
    """The calibration in `out` if the run has begun or it is of this model and data; a new one if there is none.

    Raises ArtifactError where `out` holds that of another model or other data.
    """
    from delta_attnmask.calibrating.run import read_calibration, refuse_another_calibration, write_calibration
    from delta_attnmask.cli.calibrate import describe, run_calibration

    has_begun = (out / "manifest.json").exists()  # then the manifest refuses whatever doesn't fit the run
    if not has_begun and loaded is not None:
        refuse_another_calibration(out, loaded, dataset)
    if (out / "calibration.json").exists() and (has_begun or loaded is not None):
        found = read_calibration(out)
        print(f"settings: {found.candidate}, from {out / 'calibration.json'}", file=sys.stderr)
        return _preset_of(found)
    if has_begun:
        return PRESETS[_FALLBACK]  # what the earlier start fell back to
    if loaded is None:
        raise SettingsError(
            "--shard and --engine ray don't calibrate: run `delta-attnmask calibrate … --out CAL` once and give "
            "--settings CAL, or give --settings relative or paper"
        )
    try:
        found = run_calibration(loaded, dataset, batch_tokens=batch_tokens, attention=attention)
    except TooLittleDataError as error:
        print(f"settings: not calibrated ({error}); using the preset {_FALLBACK!r}", file=sys.stderr)
        return PRESETS[_FALLBACK]
    write_calibration(found, out)
    print(describe(found), file=sys.stderr)
    return _preset_of(found)
