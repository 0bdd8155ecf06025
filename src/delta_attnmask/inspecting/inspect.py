"""Inspect single rows: score them as `score` does, and keep what it throws away."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from delta_attnmask.batches import EncodedBatch, TokenRoles
from delta_attnmask.encoding.collate import collate
from delta_attnmask.errors import DataError, SettingsError
from delta_attnmask.inspecting.cells import Place, PlaceFinder, Places
from delta_attnmask.inspecting.inspection import ImageToken, Picture, RowInspection
from delta_attnmask.inspecting.pieces import TokenFacts, read_pieces, token_roles
from delta_attnmask.inspecting.refusals import refusals
from delta_attnmask.inspecting.token_losses import token_losses
from delta_attnmask.inspecting.views import split_views
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.modeling.positions import with_positions
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.records import Record
from delta_attnmask.scoring.delta import BatchScore, score_batch
from delta_attnmask.scoring.setup import make_encoder
from delta_attnmask.settings import MaskSettings


class Inspector:
    """Inspects rows of one data set with one model and one setting."""

    def __init__(self, loaded: LoadedModel, dataset: Dataset, settings: MaskSettings):
        self.loaded = loaded
        self.dataset = dataset
        self.settings = settings
        self.encoder = make_encoder(loaded)
        self._anatomy = examine(loaded.model)
        self._anatomy.resolve_block(settings.block)  # a block that the model lacks is no row's fault
        self._tokenizer = getattr(loaded.processor, "tokenizer", loaded.processor)
        self._finder = PlaceFinder(loaded, self.encoder)

    def inspect_rows(self, rows: Iterable[int]) -> list[RowInspection]:
        """The rows in the order given; SettingsError for one that the data doesn't have."""
        wanted = list(rows)
        if unknown := [row for row in wanted if not 0 <= row < self.dataset.n_rows]:
            raise SettingsError(f"row={unknown[0]}: {self.dataset.path} has the rows 0 to {self.dataset.n_rows - 1}")
        return [self.inspect(next(self.dataset.records(row, row + 1))) for row in wanted]

    def inspect(self, record: Record) -> RowInspection:
        """One row; one that can't be scored comes back with its reason.

        Raises UnsupportedModelError where the model can't be scored with at all.
        """
        try:
            if record.error:
                raise record.error
            images = self.dataset.load_images(record.images)
            return self._inspect(record, images)
        except (DataError, SettingsError) as error:
            return RowInspection(
                row=record.row, id=record.id, source=record.source, settings=self.settings, reason=str(error)
            )

    def _inspect(self, record: Record, images: Sequence[Any]) -> RowInspection:
        batch = self._encode(record, images)
        places = self._finder.find(record, images) if images else Places()
        score = self._score(batch)
        facts = self._gather(batch, score, places.found)
        tokens = _image_tokens(facts)
        return RowInspection(
            row=record.row,
            id=record.id,
            source=record.source,
            settings=self.settings,
            loss=float(score.loss[0]),
            masked_loss=float(score.masked_loss[0]),
            saliency_total=float(score.saliency.sum()),
            pieces=read_pieces(self._tokenizer, facts),
            pictures=tuple(
                Picture(reference, image, split_views(places.found, tokens, number))
                for number, (reference, image) in enumerate(zip(record.images, images, strict=True))
            ),
            image_tokens=tokens,
            layout_fault=places.fault,
        )

    def _encode(self, record: Record, images: Sequence[Any]) -> EncodedBatch:
        batch = collate([self.encoder.encode(record, images)], self.encoder.pad_token_id)
        batch = replace(batch, inputs=with_positions(self.loaded.model, batch.inputs))
        return batch.to(self.loaded.device, self.loaded.dtype)

    def _score(self, batch: EncodedBatch) -> BatchScore:
        special = self.encoder.special_ids
        with refusals():
            return score_batch(self.loaded.model, batch.inputs, batch.labels, self.settings, special_ids=special)

    def _gather(self, batch: EncodedBatch, score: BatchScore, places: Sequence[Place | None]) -> TokenFacts:
        roles = TokenRoles.of(batch.inputs, batch.labels, self._anatomy.image_token_id, self.encoder.special_ids)
        found = token_losses(self._anatomy, batch, self.settings, score.is_masked)
        answers = roles.is_answer[0].nonzero().flatten().tolist()
        images = roles.is_image[0].nonzero().flatten().tolist()
        shown = [place.picture if place else None for place in places]
        return TokenFacts(
            ids=batch.inputs["input_ids"][0].tolist(),
            roles=token_roles(roles),
            saliency=score.saliency[0].tolist(),
            is_masked=score.is_masked[0].tolist(),
            losses=dict(zip(answers, found.loss.tolist(), strict=True)),
            masked_losses=dict(zip(answers, found.masked_loss.tolist(), strict=True)),
            pictures={
                position: number for position, number in zip(images, shown, strict=bool(places)) if number is not None
            },
        )


def _image_tokens(facts: TokenFacts) -> tuple[ImageToken, ...]:
    positions = [position for position, role in enumerate(facts.roles) if role == "image"]
    return tuple(
        ImageToken(number, facts.saliency[position], facts.is_masked[position])
        for number, position in enumerate(positions)
    )
