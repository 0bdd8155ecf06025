"""What a training is told, and what of it decides its outcome. No torch here."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from delta_attnmask.errors import SettingsError
from delta_attnmask.settings import MaskSettings
from delta_attnmask.training.settings import AugmentationSettings, Schedule

Augment = Literal[
    "none", "masked", "random", "dropout", "neftune", "twice", "twice-random", "twice-dropout", "twice-plain"
]

_TWICE = "twice"


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters on every linear layer of the decoder's blocks."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1 or not 0 <= self.dropout < 1:
            raise SettingsError(
                f"lora: rank={self.rank}, alpha={self.alpha}, dropout={self.dropout}: expected rank and alpha of at "
                "least 1, dropout from 0 to below 1"
            )


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How a model is trained on a data set.

    augment: what is done beside plain training.
        none: nothing. masked: in each forward each sample's most attended states are masked with a probability.
        random, dropout: controls of the same strength: states of random tokens, or single values of states.
        neftune: noise on the embeddings (arXiv:2310.05914).
        twice: the top rows come twice in each epoch, once plain and once masked (the paper's use);
        twice-random, twice-dropout, twice-plain: its controls, the last without any change.
    mask, probability, schedule: of the change; the last two aren't used where rows come twice, the copy always masked.
    from_scores, top_share, by: a scored run; of the rows that are trained on, only the top share by its scores is
        changed or comes twice. Without a run, all rows.
    lora: None for full finetuning. only_language: leave all but the language model as it is.
    epochs: how often each row comes. max_steps: if given, that many steps are made instead.
    learning_rate: its highest value, after `warmup` (a share of the steps); from there it falls by a cosine to 0.
    batch_size, accumulate: rows of a forward on each device, and forwards of a step.
    max_tokens: longer rows are skipped; nothing is ever truncated.
    save_steps, log_steps: steps between checkpoints, and between lines of metrics.

    Raises SettingsError with all faults listed together.
    """

    augment: Augment = "none"
    mask: MaskSettings = field(default_factory=MaskSettings)
    probability: float = 0.5
    schedule: Schedule = "constant"
    from_scores: Path | None = None
    top_share: float = 1.0
    by: str | None = None
    neftune_alpha: float = 5.0
    lora: LoraSettings | None = None
    only_language: bool = False
    epochs: float = 1.0
    max_steps: int | None = None
    learning_rate: float = 2e-5
    warmup: float = 0.03
    weight_decay: float = 0.0
    batch_size: int = 8
    accumulate: int = 1
    gradient_checkpointing: bool = False
    max_tokens: int | None = None
    seed: int = 0
    save_steps: int = 200
    log_steps: int = 10

    def __post_init__(self) -> None:
        at_least_one = ("batch_size", "accumulate", "save_steps", "log_steps", "max_steps", "max_tokens")
        faults = [
            f"{name}={value!r}: expected at least 1"
            for name in at_least_one
            if (value := getattr(self, name)) is not None and value < 1
        ]
        if self.augment not in get_args(Augment):
            faults.append(f"augment={self.augment!r}: expected one of {', '.join(get_args(Augment))}")
        faults += [
            f"{name}={value!r}: expected a number above 0"
            for name in ("epochs", "learning_rate", "neftune_alpha")
            if not (value := getattr(self, name)) > 0
        ]
        if not self.weight_decay >= 0:
            faults.append(f"weight_decay={self.weight_decay!r}: expected 0 or more")
        if self.seed < 0:
            faults.append(f"seed={self.seed!r}: expected a whole number from 0")
        if not 0 <= self.probability <= 1:
            faults.append(f"probability={self.probability!r}: expected a number from 0 to 1")
        if not 0 <= self.warmup < 1:
            faults.append(f"warmup={self.warmup!r}: expected a share of the steps from 0 to below 1")
        if not 0 < self.top_share <= 1:
            faults.append(f"top_share={self.top_share!r}: expected a share above 0, at most 1")
        if self.top_share < 1 and self.from_scores is None:
            faults.append(f"top_share={self.top_share!r}: needs the run that scored the rows (from_scores)")
        if faults:
            raise SettingsError("; ".join(faults))
        _ = self.augmentation  # raises what only it knows to be wrong

    @property
    def is_twice(self) -> bool:
        return self.augment.startswith(_TWICE)

    @property
    def augmentation(self) -> AugmentationSettings | None:
        """How states are changed; None where none are."""
        kind = self.augment.removeprefix(_TWICE).removeprefix("-") or "masked"
        if kind not in ("masked", "random", "dropout"):
            return None
        mask = MaskSettings.from_dict(self.mask.to_dict() | {"order": "random"}) if kind == "random" else self.mask
        return AugmentationSettings(
            mask=mask,
            probability=1.0 if self.is_twice else self.probability,
            schedule="constant" if self.is_twice else self.schedule,
            form="dropout" if kind == "dropout" else "mask",
            seed=self.seed,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of all that decides the outcome: not how often it is saved and told."""
        told = asdict(self) | {"from_scores": None if self.from_scores is None else str(self.from_scores)}
        return {name: value for name, value in told.items() if name not in ("save_steps", "log_steps")}
