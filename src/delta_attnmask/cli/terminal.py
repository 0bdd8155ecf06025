"""Tables for people: drawn on a terminal, plain lines elsewhere. What data sets say is never taken for markup."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to stdout; numbers are set to the right, and everything is made printable."""
    values = [list(row) for row in rows]
    cells = [[_to_text(value) for value in row] for row in values]
    console = Console()
    if not console.is_terminal:
        print("\n".join([f"{printable(title)}:", *(_to_line(columns, row) for row in cells)]))
        return
    console.print(Text(printable(title), style="italic"), soft_wrap=True)  # whole, also where it is a long path
    table = Table()
    for idx, column in enumerate(columns):
        is_numeric = all(isinstance(row[idx], int | float) for row in values)
        table.add_column(Text(column), justify="right" if is_numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


def printable(text: str) -> str:
    """Escape what a terminal would obey or hide: control characters, escape sequences, direction marks."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _to_line(columns: Sequence[str], cells: Sequence[str]) -> str:
    """Two columns read as name and value; more are named in every line."""
    if len(columns) == 2:
        return f"  {cells[0]}: {cells[1]}"
    return "  " + " | ".join(f"{column}: {cell}" for column, cell in zip(columns, cells, strict=True))


def _to_text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else printable(str(value))
