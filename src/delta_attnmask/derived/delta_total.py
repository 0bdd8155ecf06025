"""Δ summed over the answer: `delta * n_answer_tokens`, in nats a sample (`delta` is the mean per answer token)."""

from delta_attnmask.derived import Column


def delta_total(delta: Column, n_answer_tokens: Column) -> Column:
    return delta * n_answer_tokens
