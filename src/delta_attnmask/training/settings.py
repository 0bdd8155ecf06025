"""What is done to hidden states in training, as settings. No torch here."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from delta_attnmask.errors import SettingsError
from delta_attnmask.settings import MaskSettings

Schedule = Literal["constant", "rising", "falling"]
Form = Literal["mask", "dropout"]


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """How hidden states are changed in training forwards.

    mask: which tokens, at which block, and what replaces them, as for scoring.
    probability: how likely a sample is changed in a forward.
    schedule: whether that probability is constant, rises linearly from 0 to it, or falls linearly from it to 0.
    form: "mask" replaces the states of whole tokens. "dropout" is a control of the same strength: of all eligible
        tokens' states single values are set to 0, each with the probability `mask.fraction`, and the others are scaled
        up by 1 / (1 - fraction).
    seed: decides which samples are changed, and what is random in the change.

    Raises SettingsError with all faults listed together.
    """

    mask: MaskSettings = field(default_factory=MaskSettings)
    probability: float = 0.5
    schedule: Schedule = "constant"
    form: Form = "mask"
    seed: int = 0

    def __post_init__(self) -> None:
        faults = [
            f"{name}={value!r}: expected one of {', '.join(map(repr, get_args(allowed)))}"
            for name, value, allowed in (("schedule", self.schedule, Schedule), ("form", self.form, Form))
            if value not in get_args(allowed)
        ]
        if isinstance(self.probability, bool) or not 0 <= self.probability <= 1:
            faults.append(f"probability={self.probability!r}: expected a number from 0 to 1")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            faults.append(f"seed={self.seed!r}: expected a whole number from 0")
        if self.form == "dropout" and self.mask.fraction >= 1:
            faults.append(f"fraction={self.mask.fraction!r}: dropout needs one below 1")
        if faults:
            raise SettingsError("; ".join(faults))

    def probability_at(self, progress: float) -> float:
        """The probability when the share `progress` of the training is over."""
        share = {"constant": 1.0, "rising": progress, "falling": 1 - progress}[self.schedule]
        return self.probability * min(1.0, max(0.0, share))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
