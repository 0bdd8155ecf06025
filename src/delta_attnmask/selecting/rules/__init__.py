"""Rules that choose among the rows that can be kept.

A file here is one rule: a dataclass of the file's name in title case. Its fields are the rule's options, with their
defaults and what the command line's help says of them; `__post_init__` refuses values that make no sense.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.candidates import Candidates, Positions


@dataclass(frozen=True)
class Picks:
    """positions: among the candidates, best first. reason: why they are kept. details: plain JSON values."""

    positions: Positions
    reason: str
    details: dict[str, Any]


@dataclass(frozen=True)
class Rule(ABC):
    """A rule with its options. help: what it keeps, for the command line."""

    help: ClassVar[str]

    @abstractmethod
    def choose(self, candidates: Candidates, n_keep: int) -> Picks:
        """Choose exactly `n_keep` of the candidates; `n_keep` is at least 1 and at most their number."""


def option(default: Any, help: str, read: Callable[[Any], Any] | None = None) -> Any:
    """A field of a rule. read: gives the value of what users write, such as "2%"."""
    return field(default=default, metadata={"help": help, "read": read})


def read_columns(value: str | Sequence[str]) -> tuple[str, ...]:
    """Columns, also as one text with commas."""
    return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else tuple(value)


@cache
def all_rules() -> dict[str, type[Rule]]:
    """The rules by name, in alphabetical order."""
    names = sorted(module.name for module in iter_modules(__path__))
    return {name: getattr(import_module(f"{__name__}.{name}"), name.title()) for name in names}


def option_names(name: str) -> set[str]:
    """The options of a rule; none where there is no such rule."""
    return {one.name for one in fields(all_rules()[name])} if name in all_rules() else set()


def make_rule(name: str, options: Mapping[str, Any]) -> Rule:
    """The rule of that name; SettingsError for a rule, an option or a value that doesn't exist, with what does."""
    rules = all_rules()
    if name not in rules:
        raise SettingsError(f"rule={name!r}: expected one of auto, {', '.join(rules)}")
    known = {one.name: one for one in fields(rules[name])}
    for unknown in options.keys() - known.keys():
        others = [other for other, rule in rules.items() if unknown in {one.name for one in fields(rule)}]
        if not others:
            raise SettingsError(f"{unknown}: no rule has such an option; {name} has {', '.join(known) or 'none'}")
        raise SettingsError(f"{unknown}: the rule {name} doesn't take it; use the rule {' or '.join(others)}")
    readers = {given: known[given].metadata["read"] or (lambda value: value) for given in options}
    return rules[name](**{given: readers[given](value) for given, value in options.items()})
