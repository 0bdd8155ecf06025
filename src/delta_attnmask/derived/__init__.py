"""Columns computed from other columns of a score table. Numpy only, no torch.

A file here holds one function of the file's name; its parameters name the columns that it needs (which may be derived
themselves), and it returns one float64 for each row. By convention, higher is kept.
"""

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pkgutil import iter_modules

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError

Column = NDArray[np.float64]


def derived_names() -> list[str]:
    """The columns that can be derived, in alphabetical order."""
    return sorted(module.name for module in iter_modules(__path__))


def derive(name: str, column: Callable[[str], Column]) -> Column:
    """Compute the column `name`; `column` gives the stored ones it needs, NaN where a row failed."""
    function = _function(name)
    derived = derived_names()
    needs = [derive(need, column) if need in derived else column(need) for need in signature(function).parameters]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        values: Column = np.asarray(function(*needs), dtype=np.float64)
    return values


def needed_columns(name: str) -> set[str]:
    """The stored columns that a derived one is made of."""
    needs = signature(_function(name)).parameters
    return set().union(*(needed_columns(need) if need in derived_names() else {need} for need in needs))


def _function(name: str) -> Callable[..., Column]:
    if name not in derived_names():
        raise SettingsError(f"no derived column {name!r}; there are {', '.join(derived_names())}")
    function: Callable[..., Column] = getattr(import_module(f"{__name__}.{name}"), name)
    return function
