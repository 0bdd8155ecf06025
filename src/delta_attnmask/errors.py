"""Everything that this package raises on purpose.

    DeltaAttnMaskError
    ├── SettingsError            a setting is unknown, out of range, or contradicts another
    ├── DataError                a file or a row can't be used
    │   ├── RowError             one row can't be used; the run records it and goes on
    │   └── TooLittleDataError   the data is sound, but too small to calibrate on
    ├── UnsupportedModelError    the model can't be hooked, encoded for, or replayed exactly
    ├── ArtifactError            a run folder is missing, incomplete, or belongs to another run
    ├── DeviceError              the accelerator failed; only another process can go on
    └── UnitsFailedError         some units of a run failed each time they were tried; the others are scored

Every message says what was got, what was expected, and what mends it.
"""


class DeltaAttnMaskError(Exception):
    """The root; the command line catches it once and exits with 2."""


class SettingsError(DeltaAttnMaskError):
    """A setting is unknown, out of range, or contradicts another."""


class DataError(DeltaAttnMaskError):
    """A file can't be used as a data set."""


class RowError(DataError):
    """One row can't be used. Its text becomes the row's `reason`; the other rows are scored."""


class TooLittleDataError(DataError):
    """Too few rows to calibrate on; what takes a preset instead catches this."""


class UnsupportedModelError(DeltaAttnMaskError):
    """The model can't be hooked, encoded for, or replayed exactly."""


class ArtifactError(DeltaAttnMaskError):
    """A run folder is missing, incomplete, or belongs to another run."""


class DeviceError(DeltaAttnMaskError):
    """The accelerator failed; only another process can go on."""


class UnitsFailedError(DeltaAttnMaskError):
    """Some units of a run failed each time they were tried; the others are scored."""
