"""What a training is asked to do: masked hidden states, adapters, and the plan with everything else. No torch here.

`TrainingPlan` is also the options of `train`: its fields' descriptions are the command's help.
"""

from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import Parameter, Token

from delta_attnmask.errors import SettingsError
from delta_attnmask.settings import MaskSettings, read_share

Augment = Literal["none", "masked", "twice"]
Reporter = Literal["none", "trackio", "wandb", "tensorboard"]
_DEVICES = ("auto", "cpu", "cuda")
_INDIFFERENT = {"from_scores", "save_steps", "log_steps", "report_to"}
_LEARNING_RATE, _LORA_LEARNING_RATE = 2e-5, 2e-4


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """How hidden states are masked in training forwards.

    mask: which tokens, at which block, and what replaces them, as for scoring.
    probability: how likely a sample is masked in a forward.
    seed: decides which samples are masked, and what is random in that.

    Raises SettingsError with all faults listed together.
    """

    mask: MaskSettings = field(default_factory=MaskSettings)
    probability: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        faults = []
        if isinstance(self.probability, bool) or not 0 <= self.probability <= 1:
            faults.append(f"probability={self.probability!r}: expected a number from 0 to 1")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            faults.append(f"seed={self.seed!r}: expected a whole number from 0")
        if faults:
            raise SettingsError("; ".join(faults))


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters on every linear layer of the decoder's blocks.

    Args:
        rank: Rank of the adapters.
        alpha: The adapters' scale is alpha / rank.
        dropout: Dropout before the adapters.
    """

    rank: Annotated[int, Parameter(name="lora-rank")] = 16
    alpha: Annotated[int, Parameter(name="lora-alpha")] = 32
    dropout: Annotated[float, Parameter(name="lora-dropout")] = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1 or not 0 <= self.dropout < 1:
            raise SettingsError(
                f"lora: rank={self.rank}, alpha={self.alpha}, dropout={self.dropout}: expected rank and alpha of at "
                "least 1, dropout from 0 to below 1"
            )


def require_trainable(device: str, dtype: str) -> None:
    """Raise SettingsError for a device or a precision that nothing is trained with."""
    if device not in _DEVICES or dtype == "float16":
        raise SettingsError(
            f"device={device!r}, dtype={dtype!r}: training takes one of {', '.join(_DEVICES)}, and auto, float32 or "
            "bfloat16"
        )


def require_reporter(name: Reporter) -> None:
    """Raise SettingsError for a name that isn't known, and where its package isn't installed."""
    if name not in get_args(Reporter):
        raise SettingsError(f"report_to={name!r}: expected one of {', '.join(get_args(Reporter))}")
    if name != "none" and find_spec(name) is None:
        raise SettingsError(f"report_to={name!r}: the package {name} isn't installed; pip install {name}")


def _read_share(_type: Any, tokens: tuple[Token, ...]) -> float:
    return read_share(str(tokens[0].keyword), tokens[0].value, may_be_all=True)


Share = Annotated[float, Parameter(converter=_read_share)]
"""A share, as a number in Python and in per cent on the command line."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How a model is trained on a data set. Raises SettingsError with all faults listed together.

    Args:
        augment: none: plain training. masked: mask a sample's most attended states in a forward. twice: the top rows
            also come masked, as in the paper.
        mask: Which states are masked.
        probability: How likely a sample is masked in a forward; with twice the copies always are.
        from_scores: Run folder of `score`: only the top rows by its scores are masked or come twice.
        top_share: With --from-scores: share of the training rows, such as 50%.
        by: Column to rank by, as for `select`.
        lora: Adapters to train instead of all weights.
        only_language: Freeze the vision tower and the projector.
        epochs: Passes over the data.
        max_steps: Make this many steps instead.
        learning_rate: Peak learning rate; by default 2e-5, or 2e-4 with adapters.
        warmup: Share of the steps over which the rate rises from 0; then it falls along a cosine.
        weight_decay: Weight decay of AdamW.
        batch_size: Rows per forward.
        accumulate: Forwards per step.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, about a third slower.
        max_tokens: Skip longer rows; nothing is truncated.
        seed: Seed of the row order, the adapters and what is masked.
        save_steps: Steps between checkpoints; the last two are kept until the end.
        log_steps: Steps between reports of the loss.
        report_to: Where else the metrics go; needs that package.
    """

    augment: Augment = "none"
    mask: Annotated[MaskSettings, Parameter(parse=False)] = field(default_factory=MaskSettings)
    probability: float = 0.5
    from_scores: Path | None = None
    top_share: Share = 1.0
    by: str | None = None
    lora: Annotated[LoraSettings | None, Parameter(parse=False)] = None
    only_language: bool = False
    epochs: float = 1.0
    max_steps: int | None = None
    learning_rate: Annotated[float | None, Parameter(name="lr")] = None
    warmup: float = 0.03
    weight_decay: float = 0.0
    batch_size: int = 8
    accumulate: int = 1
    gradient_checkpointing: bool = False
    max_tokens: int | None = None
    seed: int = 0
    save_steps: int = 200
    log_steps: int = 10
    report_to: Reporter = "none"

    def __post_init__(self) -> None:
        values = asdict(self) | {"learning_rate": self.highest_learning_rate}
        whole = ("batch_size", "accumulate", "save_steps", "log_steps", "max_steps", "max_tokens")
        has_scores = self.from_scores is not None
        checks = [
            *((name, values[name] >= 1, "at least 1") for name in whole if values[name] is not None),
            *((name, values[name] > 0, "a number above 0") for name in ("epochs", "learning_rate")),
            ("augment", self.augment in get_args(Augment), f"one of {', '.join(get_args(Augment))}"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("warmup", 0 <= self.warmup < 1, "a share of the steps from 0 to below 1"),
            ("top_share", 0 < self.top_share <= 1, "a share above 0, at most 1"),
            ("top_share", self.top_share >= 1 or has_scores, "the run that scored the rows beside it (from_scores)"),
            ("probability", 0 <= self.probability <= 1, "a number from 0 to 1"),
            ("seed", self.seed >= 0, "a whole number from 0"),
        ]
        faults = [f"{name}={values[name]!r}: expected {what}" for name, is_right, what in checks if not is_right]
        if faults:
            raise SettingsError("; ".join(faults))
        require_reporter(self.report_to)

    @property
    def highest_learning_rate(self) -> float:
        if self.learning_rate is not None:
            return self.learning_rate
        return _LEARNING_RATE if self.lora is None else _LORA_LEARNING_RATE

    @property
    def augmentation(self) -> AugmentationSettings | None:
        """How states are masked; None where none are. The copies of twice always are."""
        if self.augment == "none":
            return None
        probability = 1.0 if self.augment == "twice" else self.probability
        return AugmentationSettings(mask=self.mask, probability=probability, seed=self.seed)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of all that decides the result: not where scores are and metrics go, nor when it saves."""
        values = asdict(self) | {"learning_rate": self.highest_learning_rate}
        return {name: value for name, value in values.items() if name not in _INDIFFERENT}
