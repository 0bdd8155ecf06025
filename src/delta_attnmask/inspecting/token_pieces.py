"""A prompt's tokens as people read them: characters whole, a run of image placeholders as one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tokenizers.decoders import DecodeStream

from delta_attnmask.batches import TokenRoles
from delta_attnmask.inspecting.inspection import Piece, PieceRole


@dataclass(frozen=True)
class TokenFacts:
    """What is known of each position of one sample, in order.

    losses, masked_losses: nats by position of the answer token; other positions are missing.
    """

    ids: Sequence[int]
    roles: Sequence[PieceRole]
    saliency: Sequence[float]
    is_masked: Sequence[bool]
    losses: dict[int, float]
    masked_losses: dict[int, float]

    def piece(self, role: PieceRole, text: str, positions: Sequence[int]) -> Piece:
        answers = [position for position in positions if position in self.losses]
        return Piece(
            role=role,
            text=text,
            n_tokens=len(positions),
            n_masked=sum(self.is_masked[position] for position in positions),
            saliency=sum(self.saliency[position] for position in positions),
            loss=sum(self.losses[position] for position in answers) if answers else None,
            masked_loss=sum(self.masked_losses[position] for position in answers) if answers else None,
        )


def token_roles(roles: TokenRoles) -> list[PieceRole]:
    """The role of each position of a batch of one; an answer's end token is part of the answer."""

    def role(is_answer: bool, is_image: bool, is_special: bool) -> PieceRole:
        return "answer" if is_answer else "image" if is_image else "special" if is_special else "text"

    masks = (roles.is_answer, roles.is_image, roles.is_special)
    return [role(*flags) for flags in zip(*(mask[0].tolist() for mask in masks), strict=True)]


def read_pieces(tokenizer: Any, facts: TokenFacts) -> tuple[Piece, ...]:
    """Every token of the sample in exactly one piece, in order.

    tokenizer: a fast one. Tokens that hold only a part of a character's bytes are joined until it is whole.
    """
    runs = groupby(range(len(facts.roles)), key=facts.roles.__getitem__)
    return tuple(piece for role, run in runs for piece in _read_run(tokenizer, facts, role, list(run)))


def _read_run(tokenizer: Any, facts: TokenFacts, role: PieceRole, run: list[int]) -> Iterator[Piece]:
    if role == "image":
        yield facts.piece(role, "", run)
    elif role == "special":
        names = tokenizer.convert_ids_to_tokens([facts.ids[position] for position in run])
        for name, position in zip(names, run, strict=True):
            yield facts.piece(role, str(name), [position])
    else:
        for text, positions in _decode(tokenizer, facts.ids, run):
            yield facts.piece(role, text, positions)


def _decode(tokenizer: Any, ids: Sequence[int], run: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
    """The text of a run, with the positions that make each part of it."""
    stream = DecodeStream(skip_special_tokens=False)
    waiting: list[int] = []
    for position in run:
        waiting.append(position)
        text = stream.step(tokenizer.backend_tokenizer, ids[position])
        if text is not None:
            yield text, waiting
            waiting = []
    if waiting:  # bytes that never become a character
        yield tokenizer.decode([ids[position] for position in waiting]), waiting
