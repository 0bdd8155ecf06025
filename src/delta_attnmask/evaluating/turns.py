"""Which answers of a conversation are asked for. No torch here."""

from dataclasses import dataclass
from typing import Literal

from delta_attnmask.records import Record

Turns = Literal["all", "last"]


@dataclass(frozen=True)
class AskedTurn:
    """One answer to be given.

    turn: which assistant turn of the row, from 0. stop: place behind it among the record's turns.
    n_images: images that stand before it.
    """

    turn: int
    stop: int
    n_images: int
    question: str
    reference: str


def asked_turns(record: Record, turns: Turns) -> list[AskedTurn]:
    """The assistant turns of a good record that are asked for."""
    found: list[AskedTurn] = []
    n_images, question = 0, ""
    for index, turn in enumerate(record.turns):
        if turn.role == "assistant":
            found.append(AskedTurn(len(found), index + 1, n_images, question, turn.text.strip()))
        elif turn.role == "user":
            n_images += turn.parts.count(None)
            question = turn.text.strip()
    return found if turns == "all" else found[-1:]
