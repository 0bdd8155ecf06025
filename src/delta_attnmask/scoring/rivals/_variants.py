"""Records with a part taken away."""

from dataclasses import replace

from delta_attnmask.records import Record, Turn


def without_images(record: Record) -> Record | None:
    """The conversation as if it had no image; None for a text-only row."""
    if not record.images:
        return None
    turns = tuple(Turn(turn.role, (turn.text,)) for turn in record.turns)
    return replace(record, turns=turns, images=())


def without_questions(record: Record) -> Record:
    """The conversation with the user's words left out; images stay."""
    return replace(record, turns=tuple(map(_without_words, record.turns)))


def _without_words(turn: Turn) -> Turn:
    if turn.role != "user":
        return turn
    return Turn(turn.role, tuple(part for part in turn.parts if part is None) or ("",))
