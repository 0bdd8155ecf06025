"""Everything that this package raises on purpose.

    DeltaAttnMaskError
    ├── SettingsError            a setting is unknown, out of range, or contradicts another
    ├── DataError                a file or a row can't be used
    │   ├── RowError             one row can't be used; the run records it and continues
    │   └── TooLittleDataError   the data is sound, but too small to calibrate on
    ├── UnsupportedModelError    the model can't be hooked, encoded for, or replayed exactly
    ├── ArtifactError            a run folder is missing, incomplete, or belongs to another run
    ├── DeviceError              the accelerator failed; only another process can continue
    └── UnitsFailedError         some units of a run failed each time they were tried; the others are scored

Every message says what was got, what was expected, and how to fix it.
"""

from enum import StrEnum


class ReasonCode(StrEnum):
    """Why a row can't be used: a short name for each kind of fault, for code and for tables; people read the detail."""

    # the row as it is written
    NOT_JSON = "not_json"
    NOT_UNICODE = "not_unicode"
    TOO_LONG = "too_long"
    BAD_VALUE = "bad_value"
    BAD_SAMPLE = "bad_sample"  # the files of a WebDataset sample
    NO_FIELD = "no_field"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_ROLE = "unknown_role"
    NO_TURNS = "no_turns"
    NO_ANSWER = "no_answer"
    TURN_ORDER = "turn_order"
    IMAGE_COUNT = "image_count"
    BAD_IMAGE_REFERENCE = "bad_image_reference"
    MEDIA_UNSUPPORTED = "media_unsupported"
    # its images
    NO_IMAGE_FOLDER = "no_image_folder"
    IMAGE_MISSING = "image_missing"
    IMAGE_OUTSIDE = "image_outside"
    IMAGE_UNREADABLE = "image_unreadable"
    IMAGE_TOO_LARGE = "image_too_large"
    URL_IMAGE = "url_image"
    # the model and its processor
    NO_IMAGE_MODEL = "no_image_model"
    SPECIAL_TOKEN = "special_token"
    TOO_MANY_TOKENS = "too_many_tokens"
    NO_ANSWER_TOKEN = "no_answer_token"
    TEMPLATE = "template"
    PROCESSOR_REFUSED = "processor_refused"
    IMAGE_ENLARGED = "image_enlarged"  # by the processor, beyond what memory holds
    MODEL_REFUSED = "model_refused"
    NOTHING_MASKABLE = "nothing_maskable"
    LOSS_NOT_FINITE = "loss_not_finite"
    # the format that it is exported to
    NOT_EXPRESSIBLE = "not_expressible"


REFUSED_BY_MODEL = frozenset(
    {ReasonCode.TEMPLATE, ReasonCode.PROCESSOR_REFUSED, ReasonCode.IMAGE_ENLARGED, ReasonCode.MODEL_REFUSED}
)


class DeltaAttnMaskError(Exception):
    """The root; the command line catches it once and exits with 2."""


class SettingsError(DeltaAttnMaskError):
    """A setting is unknown, out of range, or contradicts another."""


class DataError(DeltaAttnMaskError):
    """A file can't be used as a data set."""


class RowError(DataError):
    """One row can't be used; the other rows are scored. `code` and `detail` become its `reason_code` and `reason`."""

    def __init__(self, code: ReasonCode, detail: str) -> None:
        super().__init__(code, detail)  # both are arguments, so that it can be pickled
        self.code, self.detail = code, detail

    def __str__(self) -> str:
        return self.detail


class TooLittleDataError(DataError):
    """Too few rows to calibrate on; what takes a preset instead catches this."""


class UnsupportedModelError(DeltaAttnMaskError):
    """The model can't be hooked, encoded for, or replayed exactly."""


class ArtifactError(DeltaAttnMaskError):
    """A run folder is missing, incomplete, or belongs to another run."""


class DeviceError(DeltaAttnMaskError):
    """The accelerator failed; only another process can continue."""


class UnitsFailedError(DeltaAttnMaskError):
    """Some units of a run failed each time they were tried; the others are scored."""
