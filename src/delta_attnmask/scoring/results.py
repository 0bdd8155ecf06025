"""What a row gets in the table: its numbers, or why there are none."""

import math

from delta_attnmask.encoding.encoder import EncodedSample
from delta_attnmask.encoding.traits import answer_type, question
from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.records import Record
from delta_attnmask.scores import SampleScore


def row_score(
    record: Record, sample: EncodedSample | None, numbers: dict[str, float] | None, error: RowError | None
) -> SampleScore:
    """The row's score; a loss that is not finite makes it a failed row."""
    core: dict[str, float | None] = {name: (numbers or {}).pop(name, None) for name in ("loss", "masked_loss", "delta")}
    if numbers is not None and not all(value is not None and math.isfinite(value) for value in core.values()):
        detail = f"the loss is not finite ({core['loss']}, masked {core['masked_loss']})"
        error = error or RowError(ReasonCode.LOSS_NOT_FINITE, detail)
        numbers = None
    is_ok = numbers is not None
    return SampleScore(
        row=record.row,
        id=record.id,
        key=record.key,
        source=record.source,
        status="ok" if is_ok else "failed",
        reason=error.detail if error else "",
        reason_code=error.code if error else "",
        question=question(record),
        answer_type=answer_type(record),
        n_turns=sum(turn.role == "assistant" for turn in record.turns),
        n_images=len(record.images),
        n_tokens=sample.n_tokens if sample else None,
        n_image_tokens=sample.n_image_tokens if sample else None,
        n_answer_tokens=sample.n_answer_tokens if sample else None,
        loss=core["loss"] if is_ok else None,
        masked_loss=core["masked_loss"] if is_ok else None,
        delta=core["delta"] if is_ok else None,
        extra=dict(numbers or {}),
    )
