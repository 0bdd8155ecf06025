"""Masked hidden states in training: augmentation by the attention of the same forward that is masked.

`MaskedStateAugmentation` is the callback for the Trainer of Hugging Face; in a loop of one's own:

    with masked_states(model, AugmentationSettings(probability=0.5, seed=1)) as masking:
        for masking.epoch in range(3):
            for batch in batches:
                loss = model(**batch.inputs, masking_labels=batch.labels, masking_keys=keys).loss ...

One difference from scoring: a block's output must be masked before the later blocks have run, so the saliency is that
of the blocks up to and including the masked one. Scoring takes the mean over all blocks. With `block=-2` only the last
block's attention is missing; the earlier the block, the more.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerState, TrainingArguments

from delta_attnmask.batches import IGNORED_LABEL, TokenRoles
from delta_attnmask.encoding.encoder import Encoder
from delta_attnmask.errors import SettingsError
from delta_attnmask.masking import (
    choose_tokens,
    counted_queries,
    eligible_tokens,
    priority,
    random_numbers,
    replace_states,
    sample_seeds,
)
from delta_attnmask.modeling.anatomy import Anatomy
from delta_attnmask.modeling.changing import StateChange, changing_block
from delta_attnmask.settings import MaskSettings
from delta_attnmask.training.plan import AugmentationSettings

LABELS, KEYS, ALLOWED = "masking_labels", "masking_keys", "masking_allowed"
_BELOW = 1 << 31  # random numbers are below it


class StateMasking:
    """Decides for each training forward which samples are masked; what `masked_states` gives.

    epoch: of the training; the loop sets it. It decides the draw of the samples.
    n_samples, n_masked: samples of training forwards so far, and how many of them were masked.
    n_forwards: training forwards so far; for samples without a key it decides the draw.
    """

    def __init__(self, settings: AugmentationSettings, special_ids: Iterable[int] = ()):
        self.settings = settings
        self.epoch = 0
        self.n_samples = self.n_masked = self.n_forwards = 0
        self._special_ids = tuple(special_ids)

    def plan(self, anatomy: Anatomy, inputs: dict[str, Any], columns: dict[str, Any]) -> StateChange | None:
        """What one forward masks; None if none of its samples is drawn."""
        if self.settings.mask.tokens == "image" and inputs.get("input_ids") is None:
            raise SettingsError("tokens='image': the forward gets embeddings, which don't show where images are")
        labels = self._labels(inputs, columns)
        roles = TokenRoles.of(inputs, labels, anatomy.image_token_id, self._special_ids)
        seeds = self._seeds(inputs, roles, columns.get(KEYS))
        drawn = random_numbers(seeds, torch.full_like(seeds, -1)[:, None])[:, 0]
        is_drawn = drawn < math.ceil(self.settings.probability * _BELOW)
        if (allowed := columns.get(ALLOWED)) is not None:
            is_drawn &= allowed.to(is_drawn.device, torch.bool)
        n_drawn = int(is_drawn.sum())
        self.n_forwards += 1
        self.n_samples += len(is_drawn)
        self.n_masked += n_drawn
        if n_drawn == 0 or self.settings.mask.fraction == 0:
            return None
        return _MaskedTokens(self.settings.mask, roles, seeds, is_drawn)

    def _labels(self, inputs: dict[str, Any], columns: dict[str, Any]) -> Tensor:
        """The forward's labels; where the settings don't ask for any, none are needed."""
        labels: Tensor | None = columns.get(LABELS, inputs.get("labels"))
        mask = self.settings.mask
        if labels is not None:
            return labels
        if mask.queries == "answer" or mask.tokens == "prompt":
            raise SettingsError(
                f"queries={mask.queries!r}, tokens={mask.tokens!r} need to know the answer tokens, but the forward was "
                f"given no labels; call the model with labels=… or {LABELS}=…"
            )
        ids: Tensor | None = inputs.get("input_ids")
        like = inputs["inputs_embeds"][..., 0] if ids is None else ids
        return torch.full_like(like, IGNORED_LABEL, dtype=torch.long)

    def _seeds(self, inputs: dict[str, Any], roles: TokenRoles, keys: Tensor | None) -> Tensor:
        """A number for each sample, of its key and the epoch, or of its tokens and its place in the training."""
        if keys is None:
            places = torch.arange(len(roles.is_token), device=roles.is_token.device)
            own = sample_seeds(inputs, roles) + 7919 * (self.n_forwards + 1) + 104_729 * places
        else:
            own = keys.to(roles.is_token.device) ^ (keys.to(roles.is_token.device) >> 31)
        turn = self.settings.seed * 15_485_863 + self.epoch * 32_452_843
        return random_numbers((own + turn) & (_BELOW - 1), torch.zeros_like(own)[:, None])[:, 0]


@contextmanager
def masked_states(
    model: nn.Module, settings: AugmentationSettings, *, special_ids: Iterable[int] = ()
) -> Iterator[StateMasking]:
    """Mask hidden states in the training forwards of `model` until the context is left.

    model: the module that is called: a Hugging Face model, or what PEFT or DDP wrapped around one.
    special_ids: token ids that `exclude="special"` keeps from being masked.

    Forwards in evaluation mode or without gradients are untouched. Besides what the model takes, it can be called with
    masking_labels: `[batch, seq]`, where `labels` aren't passed and the settings need to know the answers;
    masking_keys: `[batch]`, int64, who each sample is: then what happens to it depends on seed, key and epoch alone,
        and not on the batch that it is in;
    masking_allowed: `[batch]`, boolean: False for samples that must stay as they are.
    Raises UnsupportedModelError or SettingsError where the model or its attention can't be read.
    """
    masking = StateMasking(settings, special_ids)
    with changing_block(model, settings.mask.block, masking.plan, (LABELS, KEYS, ALLOWED)):
        yield masking


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


class _MaskedTokens:
    """The states of whole tokens are replaced, the most attended ones first."""

    def __init__(self, mask: MaskSettings, roles: TokenRoles, seeds: Tensor, is_drawn: Tensor):
        self.roles = roles
        self._mask, self._seeds = mask, seeds
        self._eligible = eligible_tokens(roles, mask.tokens, mask.exclude) & is_drawn[:, None]
        self._is_masked = torch.zeros_like(self._eligible)
        counted = counted_queries(roles, mask.queries)[:, None].float()
        self.query_weights = None if mask.order == "random" else counted

    def decide(self, saliency: Tensor | None) -> None:
        is_token = self.roles.is_token
        received = is_token.float() if saliency is None else saliency[:, 0] * is_token
        ranked_by = priority(received, self._mask.order, self._seeds, is_token)
        self._is_masked = choose_tokens(ranked_by, self._eligible, self._mask.fraction)

    def apply(self, states: Tensor) -> Tensor:
        return replace_states(states, self._is_masked, self.roles.is_token, self._mask.replacement)
