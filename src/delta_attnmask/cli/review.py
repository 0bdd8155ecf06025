"""`delta-attnmask review`: let people judge blindly whether the selected samples are better."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from delta_attnmask.cli.options import Force, Json, RunDataOptions, claim_json, write_json
from delta_attnmask.cli.terminal import print_table, printable
from delta_attnmask.errors import SettingsError
from delta_attnmask.exporting.run_export import inputs_of, open_scored
from delta_attnmask.reporting.page import claim_page
from delta_attnmask.reviewing.answers import collect as collect_answers
from delta_attnmask.reviewing.handout import export_label_studio, write_page
from delta_attnmask.reviewing.pairs import begin_review
from delta_attnmask.reviewing.review_results import read_results
from delta_attnmask.runs import RunFolder


def review(
    folder: Path,
    /,
    *,
    selection: Path | None = None,
    out: Path | None = None,
    against: str = "random",
    pairs: int = 60,
    seed: int = 0,
    moved: RunDataOptions = RunDataOptions(),
    export: Literal["label-studio"] | None = None,
    collect: Annotated[list[Path] | None, Parameter(consume_multiple=True)] = None,
    with_careless: bool = False,
    json_file: Json = None,
    force: Force = False,
) -> None:
    """Let people judge blindly whether selected samples are better than others.

    `review RUN --selection FILE --out DIR` draws pairs and writes DIR/review.html, a page for the judges, each of whom
    saves a file of answers. `review DIR --collect FILES` adds these and prints the results, `review DIR` prints them
    again.

    Args:
        folder: Run folder that `score` wrote, or DIR to print its results.
        selection: A file that `select` wrote, or its note.
        out: Folder of the review. Its review.json says which side is which: keep it away from the judges.
        against: What the selected samples are compared with: random rows, rows that were left, or the file of another
            selection.
        pairs: How many pairs; docs/review.md says how precise the results are for how many.
        seed: Seed of the draw.
        export: Also write the pairs as tasks for Label Studio.
        collect: Files of answers, saved by the page or exported by Label Studio as JSON, to add to the review.
        with_careless: Also count judges who failed the attention checks.
    """
    if out is None:
        if selection is not None:
            raise SettingsError("expected RUN --selection FILE --out DIR to begin a review; --out is missing")
        claim_json(json_file, [folder, *(collect or [])], force=force)
        collect_answers(folder, collect or [])
        results = read_results(folder, with_careless=with_careless)
        write_json(json_file, asdict(results))
        if not results.raters:
            print(f"No one has judged yet: {results.n_drawn} pairs are waiting.")
        else:
            for title, columns, rows in results.tables:
                print_table(title, columns, rows)
            for sentence in results.sentences:
                print(printable(sentence))
        return
    if selection is None or collect:
        raise SettingsError("expected RUN --selection FILE --out DIR to begin a review, DIR --collect FILES to end it")
    run = RunFolder.open(folder)
    claim_page(out / "review.html", inputs_of(run, moved.place), force=force)
    protocol = begin_review(run, out, selection, against=against, n_pairs=pairs, seed=seed)
    n_compared = len(protocol.compared)
    compared = f"{n_compared} pairs ({protocol.selection}, against {protocol.against})"
    print(printable(f"{out}: {compared} and {len(protocol.pairs) - n_compared} attention checks"))
    if n_compared < pairs:
        print(f"WARNING: {pairs} pairs were asked for, but both sides share no more rows within sources")
    if len(protocol.pairs) == n_compared:
        print("WARNING: no question is long enough for a check, so nothing can reveal careless judges")
    dataset = open_scored(run, moved.place)
    page = write_page(protocol, dataset, out, force=force)
    print(printable(f"Wrote {page} ({page.stat().st_size / 1e6:.1f} MB): give judges this page and nothing else"))
    if export is not None:
        for path in export_label_studio(protocol, dataset, out, force=force):
            print(printable(f"Wrote {path}"))
    print(printable(f"Then: delta-attnmask review {out} --collect FILES, with the files that they save"))
