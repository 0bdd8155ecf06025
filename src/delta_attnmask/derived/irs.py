"""Instruction relevance: `-loss / loss_without_question`, high where the question determines the answer.

PreSel defines the ratio of the two losses and prefers it low for tasks (Safaei et al., arXiv:2503.07591).
"""

from delta_attnmask.derived import Column


def irs(loss: Column, loss_without_question: Column) -> Column:
    return -loss / loss_without_question
