"""`n_answer_tokens`: the longest answers; a strong control in instruction tuning (Zhao et al., arXiv:2402.04833)."""

from delta_attnmask.derived import Column


def long_answer(n_answer_tokens: Column) -> Column:
    return n_answer_tokens
