"""Other scores from the same load of the model, each one small file that registers under its file name.

A file defines `RIVAL`: a `TokenRival` or `AttentionRival` costs nothing but the arithmetic, a `VariantRival` one more
forward. What follows from such columns by arithmetic alone lives in `delta_attnmask.derived`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from torch import Tensor

from delta_attnmask.batches import TokenRoles
from delta_attnmask.errors import SettingsError

if TYPE_CHECKING:
    from delta_attnmask.records import Record


@dataclass(frozen=True)
class TokenRival:
    """Mean over the answer tokens of `value(logits [row, vocabulary] in float32, targets [row])`, which is `[row]`."""

    value: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AttentionRival:
    """`value(saliency [batch, seq] of all queries, roles)`, which is `[batch]`."""

    value: Callable[[Tensor, TokenRoles], Tensor]


@dataclass(frozen=True)
class VariantRival:
    """The loss of the same answer in a changed record; None where the change doesn't apply."""

    change: "Callable[[Record], Record | None]"


Rival = TokenRival | AttentionRival | VariantRival


def rival_names() -> list[str]:
    return sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))


def load_rivals(names: Sequence[str]) -> dict[str, Rival]:
    """The rivals that it takes to have the scores of these names.

    A derived column stands for the rivals that it is made of; what every run stores anyway needs none.
    Raises SettingsError that lists all unknown names together.
    """
    from delta_attnmask.derived import derived_names, needed_columns

    stored, derived, rivals = stored_names(), derived_names(), rival_names()
    if unknown := sorted(set(names) - {*stored, *derived, *rivals}):
        raise SettingsError(
            f"no scores {', '.join(map(repr, unknown))}; there are {', '.join(rivals)}; derived from what is stored: "
            f"{', '.join(derived)}; always there: {', '.join(stored)}"
        )
    wanted = [need for name in names for need in (sorted(needed_columns(name)) if name in derived else [name])]
    return {name: import_module(f"{__name__}.{name}").RIVAL for name in dict.fromkeys(wanted) if name in rivals}


def stored_names() -> list[str]:
    """The scores that every run holds without being asked."""
    return ["loss", "masked_loss", "delta", "n_answer_tokens"]
