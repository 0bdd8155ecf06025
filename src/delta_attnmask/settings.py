"""The choices that the paper leaves open: mask settings, named presets and the grids that are tried. No torch here."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from delta_attnmask.errors import SettingsError

if TYPE_CHECKING:
    from delta_attnmask.judge import Judge

Queries = Literal["all", "answer"]
Tokens = Literal["all", "prompt", "image"]
Replacement = Literal["zero", "mean"]
Order = Literal["most", "least", "random"]
Exclude = Literal["none", "sink", "special"]

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
AttentionBackend = Literal["auto", "plain", "triton"]  # which code computes attention


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """What is masked, and where. The defaults are those of the preset `relative`, which held up best uncalibrated.

    queries: whose attention counts: every non-padding position, or those that predict an answer token.
    tokens: which tokens may be masked: all non-padding ones, those that are no answer, or image placeholders.
    fraction: share of the eligible tokens that is masked, in (0, 1]; 0 masks nothing and gives delta = 0.
    block: the decoder block whose output is masked; negative counts from the end.
    replacement: what a masked state becomes: zeros, or the mean of the sample's non-padding states.
    order: which eligible tokens go first: the most attended ones, or as controls the least attended or random ones.
    exclude: tokens that are never masked: none; each sample's first token, which draws attention whatever it is
        (an attention sink, arXiv:2309.17453); or that and every special token of the tokenizer.

    Raises SettingsError with all faults listed together.
    """

    queries: Queries = "answer"
    tokens: Tokens = "all"
    fraction: float = 0.2
    block: int = -4
    replacement: Replacement = "zero"
    order: Order = "most"
    exclude: Exclude = "none"

    def __post_init__(self) -> None:
        faults = [
            f"{name}={value!r}: expected one of {', '.join(map(repr, get_args(allowed)))}"
            for name, value, allowed in (
                ("queries", self.queries, Queries),
                ("tokens", self.tokens, Tokens),
                ("replacement", self.replacement, Replacement),
                ("order", self.order, Order),
                ("exclude", self.exclude, Exclude),
            )
            if value not in get_args(allowed)
        ]
        if isinstance(self.fraction, bool) or not isinstance(self.fraction, int | float) or not 0 <= self.fraction <= 1:
            faults.append(f"fraction={self.fraction!r}: expected a number from 0 to 1")
        if isinstance(self.block, bool) or not isinstance(self.block, int):
            faults.append(f"block={self.block!r}: expected an integer such as -2")
        if faults:
            raise SettingsError("; ".join(faults))

    @classmethod
    def paper(cls) -> Self:
        """The plainest reading of the paper: all queries count, and the last block but one is masked."""
        return cls(queries="all", block=-2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from a mapping; unknown keys are refused."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise SettingsError(f"unknown settings {unknown}; known are {sorted(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


RoundsWanted = Literal[0, 1, 2, "auto"]
"""How often copies of the model learn from the rows that they trust; see `delta_attnmask.rounds`."""

WARM_ROWS = 5000  # that such a copy learns from
TRUSTED = 0.5  # the share of each source that it trusts
WARM_EPOCHS = 2
_TRAINED_ROW = 3  # forwards that a forward with its backward pass costs


def seconds_of_a_round(n_rows: int, warm_rows: int, seconds_per_row: float) -> float:
    """What a round costs beside its calibration: a sample scored, and two adapters trained.

    seconds_per_row: of scoring.
    """
    n_learned = min(n_rows * TRUSTED, 2 * warm_rows)
    return seconds_per_row * n_learned * (1 / TRUSTED + _TRAINED_ROW * WARM_EPOCHS)


@dataclass(frozen=True)
class Preset:
    """Mask settings with the form of the score that orders rows: a column, such as `delta` or `relative_delta`.

    calibration: the SHA-256 of the calibration that they come from; empty for a named one.
    judge: what gives the column `p_good`, if that is the form.
    adapters: the folders of the two that the model scores with, see `modeling.halves`; none for the model as it is.
    """

    mask: MaskSettings
    form: str
    calibration: str = ""
    judge: "Judge | None" = None
    adapters: tuple[str, ...] = ()


PRESETS: dict[str, Preset] = {
    "paper": Preset(MaskSettings.paper(), "delta"),
    # What held up best before any calibration (benchmarks/evidence/RESULTS.md): for data too small to calibrate on.
    "relative": Preset(MaskSettings(), "relative_delta"),
}

_QUERIES: tuple[Queries, ...] = ("all", "answer")
_TOKENS: tuple[Tokens, ...] = ("all", "prompt")
_FRACTIONS = {-2: (0.1, 0.2, 0.4), -4: (0.2, 0.4)}  # by block; a deeper tail costs more

_CHOICES: tuple[MaskSettings, ...] = tuple(
    MaskSettings(queries=queries, tokens=tokens, fraction=fraction, block=block)
    for block, fractions in _FRACTIONS.items()
    for queries, tokens, fraction in product(_QUERIES, _TOKENS, fractions)
)
"""20 settings: both poolings, two kinds of tokens, the fractions, two blocks."""

_VARIANTS: tuple[MaskSettings, ...] = (
    replace(MaskSettings.paper(), replacement="mean"),
    replace(MaskSettings.paper(), exclude="special"),
    replace(MaskSettings.paper(), tokens="image"),
)
"""The plainest reading with one thing changed: what replaces a state, and which tokens may be masked."""

CONTROLS: tuple[MaskSettings, ...] = (
    replace(MaskSettings.paper(), order="random"),
    replace(MaskSettings.paper(), order="random", block=-4),
    replace(MaskSettings.paper(), order="least"),
)
"""What masking does where attention guides nothing: random tokens, and the least attended ones."""

STANDARD_GRID: tuple[MaskSettings, ...] = (*_CHOICES, *_VARIANTS, *CONTROLS)
"""What `--sweep` tries: 26 settings, controls among them; a model without images has one less."""

MAX_FAILED = 0.05  # share of the rows; above it a command says no by its exit code

_DEPTHS = (0.25, 0.5, 0.75)  # share of the decoder's blocks after which states are masked


def calibration_grid(n_blocks: int) -> tuple[MaskSettings, ...]:
    """What calibration chooses from, for a decoder of so many blocks: nine settings, and random tokens as controls.

    Depth is a share of the blocks, so that a setting means the same in 4 blocks and in 28. The attention is that of all
    queries: with the answer's alone planted copies order settings less as known defects do (docs/calibration.md).
    """
    blocks = dict.fromkeys(max(0, round(depth * n_blocks) - 1) - n_blocks for depth in _DEPTHS)
    return (
        *(
            MaskSettings(queries="all", fraction=share, block=block)
            for block, share in product(blocks, (0.2, 0.4, 0.6))
        ),
        *(MaskSettings(queries="all", fraction=0.4, block=block, order="random") for block in blocks),
    )


def require_positive(**numbers: int | None) -> None:
    """Raise SettingsError that lists all numbers below 1 together; one that isn't given is None."""
    given = {name: value for name, value in numbers.items() if value is not None}
    faults = [f"{name}={value}: expected at least 1" for name, value in given.items() if value < 1]
    if faults:
        raise SettingsError("; ".join(faults))


def read_share(name: str, value: str | float, *, may_be_all: bool = False) -> float:
    """A share such as `2%` or 0.02, from 0 to below 1; SettingsError for anything else.

    may_be_all: 100% is accepted too; a bare 1 never is, as it may be meant as 1%.
    """
    text = str(value).strip()
    try:
        share = Fraction(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except (ValueError, ZeroDivisionError):
        share = Fraction(-1)
    if not 0 <= share < 1 and not (may_be_all and text == "100%"):
        raise SettingsError(
            f"{name}={value!r}: expected a share such as 2%, from 0% to {'' if may_be_all else 'below '}100%"
        )
    return float(share)
