"""`MaskedStateAugmentation`: masked hidden states for the Trainer of Hugging Face and everything built on it."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Self

from transformers import TrainerCallback, TrainerState, TrainingArguments

from delta_attnmask.encoding.encoder import Encoder
from delta_attnmask.settings import MaskSettings
from delta_attnmask.training.masked_states import StateMasking, masked_states
from delta_attnmask.training.plan import AugmentationSettings


class MaskedStateAugmentation(TrainerCallback):
    """Mask the most attended hidden states of some samples in each training forward; evaluation is untouched.

    mask, probability, seed: as in `AugmentationSettings`.
    special_ids: token ids that `exclude="special"` keeps from being masked; those of the trainer's processor if not
        given.

    A batch may hold the columns that `masked_states` describes: `masking_keys`, `masking_allowed`, `masking_labels`.
    The hooks are removed at the end of the training. The Trainer doesn't call its callbacks on an exception: where the
    model is still used after one, write `with augmentation: trainer.train()`.
    """

    def __init__(
        self,
        mask: MaskSettings | None = None,
        *,
        probability: float = 0.5,
        seed: int = 0,
        special_ids: Iterable[int] | None = None,
    ) -> None:
        self.settings = AugmentationSettings(mask=mask or MaskSettings(), probability=probability, seed=seed)
        self.masking: StateMasking | None = None
        self._special_ids = None if special_ids is None else tuple(special_ids)
        self._attached = ExitStack()
        self._counted = (0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def detach(self) -> None:
        """Remove everything from the model; done at the end of a training anyway."""
        self._attached.close()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.detach()  # what a training that ended in an exception left
        special_ids = self._special_ids
        if special_ids is None and self.settings.mask.exclude == "special":
            special_ids = tuple(Encoder(kwargs["processing_class"]).special_ids)
        attached = masked_states(kwargs["model"], self.settings, special_ids=special_ids or ())
        self.masking = self._attached.enter_context(attached)
        self.masking.n_forwards = state.global_step * args.gradient_accumulation_steps
        self._counted = (0, 0)

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if self.masking is not None:
            self.masking.epoch = int((state.epoch or 0) + 1e-6)

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Add the share of samples that were masked since the last log."""
        if self.masking is None or "loss" not in kwargs.get("logs", {}):
            return
        n_samples, n_masked = self.masking.n_samples - self._counted[0], self.masking.n_masked - self._counted[1]
        self._counted = (self.masking.n_samples, self.masking.n_masked)
        for logs in (kwargs["logs"], state.log_history[-1]):  # of the callbacks after this one, and of the Trainer
            logs["masked_share"] = round(n_masked / max(1, n_samples), 4)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.detach()
