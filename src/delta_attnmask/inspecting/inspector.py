"""Run single rows of a data set through one model: score them as `score` does, and keep what it throws away."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor

from delta_attnmask.batches import EncodedBatch, TokenRoles
from delta_attnmask.encoding.collate import collate
from delta_attnmask.encoding.encoder import make_encoder
from delta_attnmask.errors import (
    DataError,
    DeltaAttnMaskError,
    ReasonCode,
    RowError,
    SettingsError,
    UnsupportedModelError,
)
from delta_attnmask.inspecting.comparison import RowAttention
from delta_attnmask.inspecting.image_grids import image_grids
from delta_attnmask.inspecting.inspection import Box, Piece, PieceRole, RowInspection
from delta_attnmask.masking import replace_states
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.capture import captured_forward
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.modeling.running import with_positions
from delta_attnmask.modeling.shares import read_shares
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import Record
from delta_attnmask.scoring.delta import BatchScore, score_batch
from delta_attnmask.settings import MaskSettings

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class _ScoredRow:
    """A row's pictures, and the batch of one that it makes, scored."""

    pictures: Sequence["Image"]
    batch: EncodedBatch
    roles: TokenRoles
    score: BatchScore


class Inspector:
    """Runs rows of one data set through one model with one setting, each as a batch of its own.

    Raises SettingsError for a block that the model lacks.
    """

    def __init__(self, loaded: LoadedModel, dataset: Rows, settings: MaskSettings):
        self.loaded = loaded
        self.dataset = dataset
        self.settings = settings
        self._anatomy = examine(loaded.model)
        self._block = self._anatomy.resolve_block(settings.block)
        self._encoder = make_encoder(loaded)

    def inspect_rows(self, rows: Iterable[int]) -> list[RowInspection]:
        """Rows of the data, in the order given; a row that can't be scored comes back with its reason.

        Raises UnsupportedModelError where the model can't be scored with at all.
        """
        found = []
        for row in rows:
            record = self._read(row)
            try:
                with _model_errors_as_row_errors():
                    found.append(self._inspect(record))
            except (DataError, SettingsError) as error:
                found.append(RowInspection(row, record.id, record.source, self.settings, reason=str(error)))
        return found

    def measure_rows(self, rows: Sequence[int], advance: Callable[[int, int, int], None]) -> dict[int, RowAttention]:
        """Where the attention goes in each row that can be scored. Memory: one block's maps of one row.

        advance: called after each row with the numbers of rows done, of all, and of those that failed.
        Raises UnsupportedModelError for a model whose maps can't be read, DataError where no row can be used.
        """
        found: dict[int, RowAttention] = {}
        reasons: list[str] = []
        for n_done, row in enumerate(rows, start=1):
            try:
                with _model_errors_as_row_errors():
                    found[row] = self._measure(self._read(row))
            except RowError as error:
                reasons.append(str(error))
            advance(n_done, len(rows), len(reasons))
        if not found:
            example = reasons[0] if reasons else "there are no rows"
            raise DataError(f"{self.loaded.name}: none of {len(rows)} rows can be used; the first reason: {example}")
        return found

    def _read(self, row: int) -> Record:
        return next(self.dataset.records(row, row + 1))

    def _inspect(self, record: Record) -> RowInspection:
        scored = self._score(record)
        score, is_image = scored.score, scored.roles.is_image[0]
        grids, problem = list[list[Box]](), ""
        if scored.pictures:
            sizes = [picture.size for picture in scored.pictures]
            try:
                grids = image_grids(self.loaded, scored.batch.inputs, int(is_image.sum()), sizes)
            except UnsupportedModelError as error:
                problem = str(error)
        return RowInspection(
            record.row,
            record.id,
            record.source,
            self.settings,
            loss=float(score.loss[0]),
            masked_loss=float(score.masked_loss[0]),
            saliency_total=float(score.saliency.sum()),
            pieces=tuple(self._pieces(scored)),
            pictures=tuple(scored.pictures),
            image_saliency=tuple(score.saliency[0][is_image].tolist()),
            image_is_masked=tuple(score.is_masked[0][is_image].tolist()),
            grids=tuple(grids),
            layout_problem=problem,
        )

    def _measure(self, record: Record) -> RowAttention:
        scored = self._score(record)
        score, roles = scored.score, scored.roles
        return RowAttention(
            ids=scored.batch.inputs["input_ids"][0].cpu().numpy(),
            shares=read_shares(self._anatomy, scored.batch.inputs, roles)[:, 0].double().numpy(),
            loss=float(score.loss[0]),
            masked_loss=float(score.masked_loss[0]),
            is_masked=score.is_masked[0].cpu().numpy(),
            has_image=bool(roles.is_image.any()),
        )

    def _score(self, record: Record) -> _ScoredRow:
        """Raises RowError for a row that can't be used."""
        if record.error:
            raise record.error
        model, encoder = self.loaded.model, self._encoder
        pictures = self.dataset.load_images(record.images)
        batch = collate([encoder.encode(record, pictures)], encoder.pad_token_id)
        batch = replace(batch, inputs=with_positions(model, batch.inputs)).to(self.loaded.device, self.loaded.dtype)
        roles = TokenRoles.of(batch.inputs, batch.labels, self._anatomy.image_token_id, encoder.special_ids)
        score = score_batch(model, batch.inputs, batch.labels, self.settings, special_ids=encoder.special_ids)
        return _ScoredRow(pictures, batch, roles, score)

    def _pieces(self, scored: _ScoredRow) -> Iterator[Piece]:
        is_masked, saliency = scored.score.is_masked[0].cpu(), scored.score.saliency[0].cpu()
        losses = self._token_losses(scored)
        flags = [
            mask[0].cpu().numpy() for mask in (scored.roles.is_answer, scored.roles.is_image, scored.roles.is_special)
        ]
        roles = np.select(flags, ["answer", "image", "special"], "text").tolist()
        tokenizer = getattr(self.loaded.processor, "tokenizer", self.loaded.processor)
        for role, text, positions in read_pieces(tokenizer, scored.batch.inputs["input_ids"][0].tolist(), roles):
            loss, masked_loss = losses[:, positions].sum(1).tolist() if role == "answer" else (None, None)
            yield Piece(
                role=role,
                text=text,
                n_tokens=len(positions),
                n_masked=int(is_masked[positions].sum()),
                saliency=float(saliency[positions].sum()),
                loss=loss,
                masked_loss=masked_loss,
            )

    def _token_losses(self, scored: _ScoredRow) -> Tensor:
        """Nats of each answer token without and with the mask, 0 elsewhere; `[2, seq]`, float32, on the CPU.

        Runs the batch once more and masks what `score_batch` has masked; the means are the row's two losses.
        """
        is_masked, roles, batch = scored.score.is_masked, scored.roles, scored.batch
        no_pools = is_masked.new_zeros(1, 0, is_masked.shape[1], dtype=torch.float32)
        with captured_forward(self._anatomy, batch.inputs, batch.labels, roles, no_pools, [self._block]) as forward:
            states = replace_states(forward.states[self._block], is_masked, roles.is_token, self.settings.replacement)
            losses = forward.token_losses(forward.final_rows())
            masked_losses = forward.token_losses(forward.run_tail(self._block, states))
        found = torch.zeros(2, is_masked.shape[1])
        found[:, roles.is_answer[0].cpu()] = torch.stack([losses, masked_losses]).cpu()
        return found


def read_pieces(
    tokenizer: Any, ids: Sequence[int], roles: Sequence[PieceRole]
) -> Iterator[tuple[PieceRole, str, list[int]]]:
    """Role, text and positions of each run of tokens that reads as one; every token in exactly one, in order.

    tokenizer: a fast one. Tokens that hold only a part of a character's bytes are joined until it is whole.
    """
    for role, run in groupby(range(len(ids)), key=roles.__getitem__):
        positions = list(run)
        if role == "image":
            yield role, "", positions
        elif role == "special":
            names = tokenizer.convert_ids_to_tokens([ids[position] for position in positions])
            yield from ((role, str(name), [position]) for name, position in zip(names, positions, strict=True))
        else:
            stream, waiting = DecodeStream(skip_special_tokens=False), list[int]()
            for position in positions:
                waiting.append(position)
                text = stream.step(tokenizer.backend_tokenizer, ids[position])
                if text is not None:
                    yield role, text, waiting
                    waiting = []
            if waiting:  # bytes that never become a character
                yield role, tokenizer.decode([ids[position] for position in waiting]), waiting


@contextmanager
def _model_errors_as_row_errors() -> Iterator[None]:
    """Turn whatever the model's code raises on a row into RowError; errors of settings, model and device stay."""
    try:
        yield
    except (DeltaAttnMaskError, torch.AcceleratorError):
        raise
    except Exception as error:  # a model's code may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RowError(ReasonCode.MODEL_REFUSED, f"the model refuses the row: {reason}") from error
