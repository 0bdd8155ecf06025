"""`delta-attnmask review`: let people judge blindly whether the selected samples are better."""

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from delta_attnmask.cli.options import RunDataOptions
from delta_attnmask.cli.terminal import print_table, printable
from delta_attnmask.errors import SettingsError
from delta_attnmask.reviewing.answers import collect as collect_answers
from delta_attnmask.reviewing.handout import begin_review, write_page
from delta_attnmask.reviewing.labelstudio import export_label_studio
from delta_attnmask.reviewing.protocol import Protocol
from delta_attnmask.reviewing.review_results import ReviewResults, read_results
from delta_attnmask.reviewing.samples import SampleBook
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
    json_text: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Let people judge, without knowing which is which, whether selected samples are better than others.

    `review RUN --selection FILE --out DIR` draws pairs and writes DIR/review.html, a page for the judges, each of whom
    saves a file of answers. `review DIR --collect FILES` adds these and prints the results, `review DIR` prints them
    again.

    Args:
        folder: Run folder that `score` wrote, or DIR to print its results.
        selection: A file that `select` wrote, or its note.
        out: Folder of the review. Its review.json says which side is which: keep it away from the judges.
        against: What the selected samples are compared with: random rows, rows that were left, or another selection's
            file.
        pairs: Pairs of a selected sample and another. docs/review.md says how many give which precision.
        seed: Of the draw.
        export: Also write the pairs as tasks for Label Studio.
        collect: Files of answers, saved by the page or exported by Label Studio as JSON, to add to the review.
        with_careless: Count judges who failed the attention checks, too.
        json_text: Print the results as JSON.
    """
    if out is None:
        if selection is not None:
            raise SettingsError("expected RUN --selection FILE --out DIR to begin a review; --out is missing")
        if collect:
            collect_answers(folder, collect)
        _print_results(read_results(folder, with_careless=with_careless), json_text)
        return
    if selection is None or collect:
        raise SettingsError("expected RUN --selection FILE --out DIR to begin a review, DIR --collect FILES to end it")
    run = RunFolder.open(folder)
    protocol = begin_review(run, out, selection, against=against, n_pairs=pairs, seed=seed)
    drawn, seed = protocol.pairs, protocol.review.seed
    book = SampleBook.open(run, drawn, seed=seed, place=moved.place)
    _describe(protocol, out)
    page = write_page(protocol, book, out)
    print(printable(f"Wrote {page} ({page.stat().st_size / 1e6:.1f} MB): give this page to the judges, nothing else"))
    if export is not None:
        for path in export_label_studio(protocol.pairs, book, out):
            print(printable(f"Wrote {path}"))
    print(printable(f"Then: delta-attnmask review {out} --collect FILES, with the files that they save"))


def _describe(protocol: Protocol, out: Path) -> None:
    drawn, review = protocol.pairs, protocol.review
    n_pairs = sum(pair.kind == "compare" for pair in drawn)
    compared = f"{n_pairs} pairs ({review.selection}, against {review.against})"
    print(printable(f"{out}: {compared} and {len(drawn) - n_pairs} attention checks"))
    if not any(pair.kind == "shuffled" for pair in drawn):
        print("WARNING: no instruction has enough words to shuffle, so repeated pairs alone reveal careless judges")
    if n_pairs < review.n_pairs:
        print(f"WARNING: {review.n_pairs} pairs were asked for, but both sides share no more rows within sources")


def _print_results(results: ReviewResults, as_json: bool) -> None:
    if as_json:
        print(json.dumps(results.to_dict(), indent=1, ensure_ascii=False))
        return
    if not results.raters:
        print(f"Nobody has judged yet: {results.n_drawn} pairs are waiting.")
        return
    for title, columns, rows in results.tables:
        print_table(title, columns, rows)
    for sentence in results.sentences:
        print(printable(sentence))
