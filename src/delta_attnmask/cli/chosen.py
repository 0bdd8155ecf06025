"""Which settings a command works with: calibrated on the spot, read from a calibration, or a preset."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delta_attnmask.errors import DataError, SettingsError
from delta_attnmask.settings import PRESETS, Preset

if TYPE_CHECKING:
    from delta_attnmask.modeling.load import LoadedModel
    from delta_attnmask.reading.dataset import Dataset

_FALLBACK = "relative"


def choose_settings(
    wanted: str, overrides: dict[str, Any], loaded: "LoadedModel", dataset: "Dataset", out: Path, batch_tokens: int
) -> Preset:
    """Turn `--settings` and the single options beside it into mask settings and a form.

    wanted: "auto", the name of a preset, or a folder that `calibrate` made. overrides: options that were given.
    "auto" keeps what it finds in `out` and reads it there when the command is started again.
    """
    if wanted == "auto":
        preset = PRESETS["paper"] if overrides else _calibrated(loaded, dataset, out, batch_tokens)
    elif wanted in PRESETS:
        preset = PRESETS[wanted]
    elif Path(wanted).exists():
        preset = _read(Path(wanted))
    else:
        names = ", ".join(["auto", *PRESETS])
        raise SettingsError(f"settings={wanted!r}: expected {names}, or a folder that `calibrate` made")
    return Preset(replace(preset.mask, **overrides), preset.form)


def _read(folder: Path) -> Preset:
    from delta_attnmask.calibrating.run import read_calibration

    found = read_calibration(folder)
    return Preset(found.settings, found.candidate.form)


def _calibrated(loaded: "LoadedModel", dataset: "Dataset", out: Path, batch_tokens: int) -> Preset:
    """The calibration in `out` if it is of this model and data; otherwise a new one, written there."""
    from delta_attnmask.calibrating.run import fits, read_calibration, write_calibration
    from delta_attnmask.cli.calibrate import describe, run_calibration

    if (out / "calibration.json").exists() and fits(found := read_calibration(out), loaded, dataset):
        print(f"settings: {found.candidate}, from {out / 'calibration.json'}", file=sys.stderr)
        return Preset(found.settings, found.candidate.form)
    if (out / "manifest.json").exists() and not (out / "calibration.json").exists():
        return PRESETS[_FALLBACK]  # what the earlier start fell back to; the manifest refuses if it was something else
    try:
        found = run_calibration(loaded, dataset, batch_tokens=batch_tokens)
    except DataError as error:
        print(f"settings: not calibrated ({error}); using the preset {_FALLBACK!r}", file=sys.stderr)
        return PRESETS[_FALLBACK]
    write_calibration(found, out)
    print(describe(found), file=sys.stderr)
    return Preset(found.settings, found.candidate.form)
