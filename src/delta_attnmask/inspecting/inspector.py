"""Inspect single rows: score them as `score` does, and keep what it throws away."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from delta_attnmask.batches import EncodedBatch, TokenRoles
from delta_attnmask.errors import DataError, SettingsError, UnsupportedModelError
from delta_attnmask.inspecting.image_grids import image_grids
from delta_attnmask.inspecting.inspection import Box, ImageToken, RowInspection
from delta_attnmask.inspecting.single_rows import SingleRow, SingleRows, model_errors_as_row_errors
from delta_attnmask.inspecting.token_pieces import TokenFacts, read_pieces, token_roles
from delta_attnmask.masking import replace_states
from delta_attnmask.modeling.anatomy import Anatomy, examine
from delta_attnmask.modeling.capture import captured_forward
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import Record
from delta_attnmask.scoring.delta import BatchScore, score_batch
from delta_attnmask.settings import MaskSettings


class Inspector:
    """Inspects rows of one data set with one model and one setting."""

    def __init__(self, loaded: LoadedModel, dataset: Rows, settings: MaskSettings):
        self.loaded = loaded
        self.dataset = dataset
        self.settings = settings
        self.rows = SingleRows(loaded, dataset)
        self._anatomy = examine(loaded.model)
        self._anatomy.resolve_block(settings.block)  # a block that the model lacks is no row's fault
        self._tokenizer = getattr(loaded.processor, "tokenizer", loaded.processor)

    def inspect_rows(self, rows: Iterable[int]) -> list[RowInspection]:
        """The rows in the order given; SettingsError for one that the data doesn't have."""
        wanted = list(rows)
        if unknown := [row for row in wanted if not 0 <= row < self.dataset.n_rows]:
            raise SettingsError(f"row={unknown[0]}: {self.dataset.name} has the rows 0 to {self.dataset.n_rows - 1}")
        return [self.inspect(self.rows.read(row)) for row in wanted]

    def inspect(self, record: Record) -> RowInspection:
        """One row; one that can't be scored comes back with its reason.

        Raises UnsupportedModelError where the model can't be scored with at all.
        """
        try:
            return self._inspect(record, self.rows.encode(record))
        except (DataError, SettingsError) as error:
            return RowInspection(
                row=record.row, id=record.id, source=record.source, settings=self.settings, reason=str(error)
            )

    def _inspect(self, record: Record, row: SingleRow) -> RowInspection:
        special = self.rows.special_ids
        with model_errors_as_row_errors():
            score = score_batch(
                self.loaded.model, row.batch.inputs, row.batch.labels, self.settings, special_ids=special
            )
        facts = self._gather(row.batch, score)
        tokens, layout_problem = self._place(row, facts)
        return RowInspection(
            row=record.row,
            id=record.id,
            source=record.source,
            settings=self.settings,
            loss=float(score.loss[0]),
            masked_loss=float(score.masked_loss[0]),
            saliency_total=float(score.saliency.sum()),
            pieces=read_pieces(self._tokenizer, facts),
            pictures=row.pictures,
            image_tokens=tokens,
            layout_problem=layout_problem,
        )

    def _gather(self, batch: EncodedBatch, score: BatchScore) -> TokenFacts:
        roles = TokenRoles.of(batch.inputs, batch.labels, self._anatomy.image_token_id, self.rows.special_ids)
        losses, masked_losses = token_losses(self._anatomy, batch, self.settings, score.is_masked)
        answers = roles.is_answer[0].nonzero().flatten().tolist()
        return TokenFacts(
            ids=batch.inputs["input_ids"][0].tolist(),
            roles=token_roles(roles),
            saliency=score.saliency[0].tolist(),
            is_masked=score.is_masked[0].tolist(),
            losses=dict(zip(answers, losses.tolist(), strict=True)),
            masked_losses=dict(zip(answers, masked_losses.tolist(), strict=True)),
        )

    def _place(self, row: SingleRow, facts: TokenFacts) -> tuple[tuple[ImageToken, ...], str]:
        """The row's image tokens on their pictures; without a place, and why, where the layout is unknown."""
        positions = [position for position, role in enumerate(facts.roles) if role == "image"]
        boxes: Sequence[tuple[int | None, Box | None]] = [(None, None)] * len(positions)
        problem = ""
        if row.pictures:
            sizes = [picture.size for picture in row.pictures]
            try:
                grids = image_grids(self.loaded, row.batch.inputs, len(positions), sizes)
                boxes = [(number, box) for number, grid in enumerate(grids) for box in grid]
            except UnsupportedModelError as error:
                problem = str(error)
        tokens = (
            ImageToken(number, facts.saliency[position], facts.is_masked[position], *box)
            for number, (position, box) in enumerate(zip(positions, boxes, strict=True))
        )
        return tuple(tokens), problem


def token_losses(
    anatomy: Anatomy, batch: EncodedBatch, settings: MaskSettings, is_masked: Tensor
) -> tuple[Tensor, Tensor]:
    """Nats of each answer token of the batch without and with the mask, sample after sample in order; `[row]`, float32.

    Runs the batch once more and masks what `score_batch` has masked; the means over a sample are its two losses.
    is_masked: `[batch, seq]`, as `BatchScore` has it.
    """
    block = anatomy.resolve_block(settings.block)
    roles = TokenRoles.of(batch.inputs, batch.labels, anatomy.image_token_id)
    no_pools = torch.zeros(len(is_masked), 0, is_masked.shape[1], device=is_masked.device)
    with captured_forward(anatomy, batch.inputs, batch.labels, roles, no_pools, [block]) as forward:
        states = replace_states(forward.states[block], is_masked, roles.is_token, settings.replacement)
        losses = forward.token_losses(forward.final_rows())
        return losses, forward.token_losses(forward.run_tail(block, states))
