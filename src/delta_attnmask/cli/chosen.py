"""Which settings a command works with: calibrated on the spot, read from a calibration, or a preset."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delta_attnmask.errors import SettingsError, TooLittleDataError
from delta_attnmask.settings import PRESETS, Preset

if TYPE_CHECKING:
    from delta_attnmask.modeling.load import LoadedModel
    from delta_attnmask.reading.dataset import Dataset

_FALLBACK = "relative"


def choose_settings(
    wanted: str,
    overrides: dict[str, Any],
    loaded: "LoadedModel | None",
    dataset: "Dataset",
    out: Path | None,
    batch_tokens: int,
) -> Preset:
    """Turn `--settings` and the single options beside it into mask settings and a form.

    wanted: "auto", the name of a preset, or a folder that `calibrate` made. overrides: options that were given.
    loaded: None where the model is elsewhere, or other processes choose too; then nothing is calibrated.
    out: where the calibration that was used is kept, for `select` and for starting again; None for a dry run, which
        calibrates nothing and takes the paper's settings instead.
    """
    if wanted == "auto" and (overrides or out is None):
        preset = PRESETS["paper"]
    elif wanted == "auto" and out is not None:
        preset = _calibrated(loaded, dataset, out, batch_tokens)
    elif wanted in PRESETS:
        preset = PRESETS[wanted]
    elif Path(wanted).exists():
        preset = _read(Path(wanted), out)
    else:
        names = ", ".join(["auto", *PRESETS])
        raise SettingsError(f"settings={wanted!r}: expected {names}, or a folder that `calibrate` made")
    return Preset(replace(preset.mask, **overrides), preset.form)


def _read(folder: Path, out: Path | None) -> Preset:
    from delta_attnmask.calibrating.run import read_calibration, write_calibration

    found = read_calibration(folder)
    if out is not None and not (out / "manifest.json").exists():
        write_calibration(found, out)
    return Preset(found.settings, found.candidate.form)


def _calibrated(loaded: "LoadedModel | None", dataset: "Dataset", out: Path, batch_tokens: int) -> Preset:
    """The calibration in `out` if the run has begun or it is of this model and data; otherwise a new one."""
    from delta_attnmask.calibrating.run import fits, read_calibration, write_calibration
    from delta_attnmask.cli.calibrate import describe, run_calibration

    has_begun = (out / "manifest.json").exists()  # then the manifest refuses whatever doesn't fit the run
    if (out / "calibration.json").exists():
        found = read_calibration(out)
        if has_begun or (loaded is not None and fits(found, loaded, dataset)):
            print(f"settings: {found.candidate}, from {out / 'calibration.json'}", file=sys.stderr)
            return Preset(found.settings, found.candidate.form)
    elif has_begun:
        return PRESETS[_FALLBACK]  # what the earlier start fell back to
    if loaded is None:
        raise SettingsError(
            "--shard and --engine ray don't calibrate: run `delta-attnmask calibrate … --out CAL` once and give "
            "--settings CAL, or give --settings relative or paper"
        )
    try:
        found = run_calibration(loaded, dataset, batch_tokens=batch_tokens)
    except TooLittleDataError as error:
        print(f"settings: not calibrated ({error}); using the preset {_FALLBACK!r}", file=sys.stderr)
        return PRESETS[_FALLBACK]
    write_calibration(found, out)
    print(describe(found), file=sys.stderr)
    return Preset(found.settings, found.candidate.form)
