"""Tables for people: drawn on a terminal, plain lines elsewhere. What data sets say is never taken for markup."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to stdout; numbers are set to the right, everything is made printable."""
    cells = [[_to_text(cell) for cell in row] for row in rows]
    console = Console()
    if not console.is_terminal:
        print(f"{title}:" if not cells else "\n".join([f"{title}:", *(_to_line(columns, row) for row in cells)]))
        return
    table = Table(title=Text(title), title_justify="left")
    for idx, column in enumerate(columns):
        is_numeric = bool(cells) and all(
            row[idx].replace(",", "").replace(".", "").rstrip("%").isdigit() for row in cells
        )
        table.add_column(Text(column), justify="right" if is_numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


def printable(text: str) -> str:
    """Escape what a terminal would obey or hide: control characters, escape sequences, direction marks."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def _to_line(columns: Sequence[str], cells: Sequence[str]) -> str:
    return "  " + "  ".join(f"{column}={cell}" for column, cell in zip(columns, cells, strict=True))


def _to_text(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) else printable(str(cell))
