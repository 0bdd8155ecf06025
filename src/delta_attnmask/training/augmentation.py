"""`MaskedStateAugmentation`: masked hidden states for the Trainer of Hugging Face and everything built on it."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
from transformers import TrainerCallback, TrainerState, TrainingArguments

from delta_attnmask.encoding.encoder import Encoder
from delta_attnmask.errors import SettingsError
from delta_attnmask.settings import MaskSettings
from delta_attnmask.training.examples import key_number, top_keys
from delta_attnmask.training.masked_states import KEYS, StateMasking, masked_states
from delta_attnmask.training.plan import AugmentationSettings, Form, Schedule

Collator = Callable[[list[dict[str, Any]]], Any]


class MaskedStateAugmentation(TrainerCallback):
    """Mask the most attended hidden states of some samples in each training forward; evaluation is untouched.

    mask, probability, schedule, form, seed: as in `AugmentationSettings`.
    from_scores: a run folder of `delta-attnmask score`; only the rows in its top share are ever changed. They are known
        by their keys, so the batches must come from `with_keys`.
    top_share: that share of the run's scored rows. by: the column that ranks them, as for `select`.
    special_ids: token ids that `exclude="special"` keeps from being masked; those of the trainer's processor if not
        given.

    The hooks are removed at the end of the training. The Trainer doesn't call its callbacks on an exception: where the
    model is still used after one, write `with augmentation: trainer.train()`.
    """

    def __init__(
        self,
        mask: MaskSettings | None = None,
        *,
        probability: float = 0.5,
        schedule: Schedule = "constant",
        form: Form = "mask",
        seed: int = 0,
        from_scores: str | Path | None = None,
        top_share: float = 0.2,
        by: str | None = None,
        special_ids: Iterable[int] | None = None,
    ) -> None:
        self.settings = AugmentationSettings(
            mask=mask or MaskSettings(), probability=probability, schedule=schedule, form=form, seed=seed
        )
        self.masking: StateMasking | None = None
        self._only = None if from_scores is None else torch.from_numpy(top_keys(from_scores, top_share, by))
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
        attached = masked_states(kwargs["model"], self.settings, special_ids=special_ids or (), only=self._only)
        self.masking = self._attached.enter_context(attached)
        self.masking.n_forwards = state.global_step * args.gradient_accumulation_steps
        self._counted = (0, 0)

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if self.masking is not None:
            self.masking.epoch = int((state.epoch or 0) + 1e-6)

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if self.masking is not None:
            self.masking.progress = state.global_step / max(1, state.max_steps)

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Add the share of samples that were changed since the last log, for the callbacks after this one."""
        if self.masking is None or "loss" not in kwargs.get("logs", {}):
            return
        n_samples, n_masked = (
            now - before
            for now, before in zip((self.masking.n_samples, self.masking.n_masked), self._counted, strict=True)
        )
        self._counted = (self.masking.n_samples, self.masking.n_masked)
        kwargs["logs"]["masked_share"] = round(n_masked / max(1, n_samples), 4)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.detach()


def with_keys(collator: Collator, field: str = "key") -> Collator:
    """A collator that takes each row's key (`Record.key`, hex) out of `field` and sends it along with the batch.

    The Trainer needs `remove_unused_columns=False`, or it drops the field.
    """

    def collate(rows: Sequence[dict[str, Any]]) -> Any:
        if missing := [index for index, row in enumerate(rows) if field not in row]:
            raise SettingsError(
                f"rows {missing} of a batch have no {field!r}; add the column, and set remove_unused_columns=False"
            )
        keys = torch.tensor([key_number(row[field]) for row in rows])
        batch = collator([{name: value for name, value in row.items() if name != field} for row in rows])
        batch[KEYS] = keys
        return batch

    return collate
