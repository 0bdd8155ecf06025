"""What the command that made a run was given, where its manifest has it."""

from collections.abc import Sequence


def recorded_option(command: Sequence[str], name: str) -> str | None:
    """The value of an option such as `--revision` in a recorded command line; None where it wasn't given."""
    for position, word in enumerate(command):
        option, is_joined, value = word.partition("=")
        if option == name:
            return value if is_joined else next(iter(command[position + 1 :]), None)
    return None
