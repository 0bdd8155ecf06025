"""The choices that the paper leaves open, as named settings. No torch here."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from delta_attnmask.errors import SettingsError

Queries = Literal["all", "answer"]
Tokens = Literal["all", "prompt", "image"]
Replacement = Literal["zero", "mean"]
Order = Literal["most", "least", "random"]
Exclude = Literal["none", "sink", "special"]


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """What is masked, and where. The defaults are the plainest reading of the paper (preset `paper`).

    queries: whose attention counts: every non-padding position, or those that predict an answer token.
    tokens: which tokens may be masked: all non-padding ones, those that are no answer, or image placeholders.
    fraction: share of the eligible tokens that is masked, in (0, 1]; 0 masks nothing and gives delta = 0.
    block: the decoder block whose output is masked; negative counts from the end.
    replacement: what a masked state becomes: zeros, or the mean of the sample's non-padding states.
    order: which eligible tokens go first: the most attended ones, or as controls the least attended or random ones.
    exclude: tokens that are never masked: none; each sample's first token, which draws attention whatever it says
        (an attention sink, arXiv:2309.17453); or that and every special token of the tokenizer.

    Raises SettingsError with all faults listed together.
    """

    queries: Queries = "all"
    tokens: Tokens = "all"
    fraction: float = 0.2
    block: int = -2
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
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from a mapping; unknown keys are refused."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise SettingsError(f"unknown settings {unknown}; known are {sorted(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Preset:
    """Mask settings with the form of the score that orders rows: a column, such as `delta` or `relative_delta`.

    calibration: the SHA-256 of the calibration that they come from; empty for a named one.
    """

    mask: MaskSettings
    form: str
    calibration: str = ""


PRESETS: dict[str, Preset] = {
    # The plainest reading of the paper.
    "paper": Preset(MaskSettings(), "delta"),
    # What held up best before any calibration (docs/evidence.md): for data too small to calibrate on.
    "relative": Preset(MaskSettings(queries="answer", block=-4), "relative_delta"),
}


def require_positive(**numbers: int | None) -> None:
    """Raise SettingsError that lists all numbers below 1 together; one that isn't given is None."""
    given = {name: value for name, value in numbers.items() if value is not None}
    faults = [f"{name}={value}: expected at least 1" for name, value in given.items() if value < 1]
    if faults:
        raise SettingsError("; ".join(faults))
