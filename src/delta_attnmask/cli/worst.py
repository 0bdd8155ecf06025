"""`delta-attnmask worst`: the rows that the score likes least, with their images."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from delta_attnmask.cli.options import Force, RunDataOptions
from delta_attnmask.cli.report import with_inspections
from delta_attnmask.cli.terminal import print_table
from delta_attnmask.errors import SettingsError
from delta_attnmask.exporting.run_export import inputs_of
from delta_attnmask.reporting.gallery import MAX_CARDS, Card
from delta_attnmask.reporting.page import claim_page, write_page
from delta_attnmask.reporting.run_report import Request, make_worst
from delta_attnmask.runs import RunFolder
from delta_attnmask.settings import require_positive

_N_CHARS = 60  # of a question


def worst(
    run: Path,
    /,
    *,
    n: Annotated[int, Parameter(name=["--n", "-n"])] = 50,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("worst.html"),
    by: str | None = None,
    inspect: int = 0,
    moved: RunDataOptions = RunDataOptions(),
    force: Force = False,
) -> None:
    """List the rows with the lowest score, and write a page that shows them: look at these first.

    Args:
        run: Run folder that `score` wrote.
        n: How many rows, at most 500.
        out: HTML file to write; it needs no network.
        by: Column to rank by, stored or derived. By default the one that the run was scored for.
        inspect: How many of them show where the model looked; above 0 this loads the model.
    """
    require_positive(n=n)
    if n > MAX_CARDS:
        raise SettingsError(f"n={n}: a page shows {MAX_CARDS} rows at most")
    folder = RunFolder.open(run)
    claim_page(out, inputs_of(folder, moved.place), force=force)
    request = Request(run=folder, selection=None, place=moved.place, n_cards=n)
    html, cards = make_worst(with_inspections(request, inspect) if inspect else request, by)
    column = next(iter(cards[0].numbers))
    lines = [(card.row, card.id, card.source or "(none)", card.numbers[column], _ask(card)) for card in cards]
    print_table(f"Lowest {column}", ["row", "id", "source", column, "question"], lines)
    write_page(out, html, force=force)
    print(f"Wrote {out}")


def _ask(card: Card) -> str:
    """The first question, shortened."""
    text = "" if card.record is None else next((turn.text for turn in card.record.turns if turn.role == "user"), "")
    words = " ".join(text.split())
    return words if len(words) <= _N_CHARS else f"{words[:_N_CHARS]}…"
