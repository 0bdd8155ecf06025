"""`delta-attnmask review`: let people judge blindly whether the selected samples are better."""

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from delta_attnmask.artifacts import RunFolder
from delta_attnmask.cli.tables import print_table, printable
from delta_attnmask.errors import SettingsError
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reviewing.begin import Wanted, begin_review
from delta_attnmask.reviewing.labelstudio import export_label_studio, import_label_studio
from delta_attnmask.reviewing.results import QuestionResult, ReviewResults, WinRate, percent, read_results
from delta_attnmask.reviewing.samples import SampleBook
from delta_attnmask.reviewing.store import ReviewStore


def review(
    run: Path | None = None,
    /,
    *,
    selection: Path | None = None,
    out: Path | None = None,
    against: str | None = None,
    pairs: int | None = None,
    sheets: int | None = None,
    seed: int | None = None,
    serve: Annotated[bool, Parameter(negative=())] = False,
    host: str = "127.0.0.1",
    port: int = 8765,
    token: Annotated[bool, Parameter(negative=())] = False,
    allow_host: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    data: Path | None = None,
    images: Path | None = None,
    allow_outside: Annotated[bool, Parameter(negative=())] = False,
    results: Path | None = None,
    with_careless: Annotated[bool, Parameter(negative=())] = False,
    json_text: Annotated[bool, Parameter(name="--json", negative=())] = False,
    export: Literal["label-studio"] | None = None,
    import_file: Annotated[Path | None, Parameter(name="--import")] = None,
) -> None:
    """Let people judge, without knowing which is which, whether selected samples are better than others.

    `review RUN --selection FILE --out review.sqlite --serve` draws pairs and serves the page; the same command goes on
    with a review that was begun. `review --results review.sqlite` says what came of it.

    Parameters
    ----------
    run
        Folder that `delta-attnmask score --out` has made.
    selection
        A file that `select` wrote, or its note.
    out
        File of the review; judgements are added to it at once and nothing is ever removed.
    against
        What the selected samples are compared with: random rows, rows that were left, or another selection's file.
        random if not given.
    pairs
        Pairs of a selected sample and another; 60 if not given. docs/review.md says how many give which precision.
    sheets
        Pairs of two sets of twelve samples; one for ten pairs if not given.
    seed
        Of the draw; 0 if not given.
    serve
        Serve the page until Ctrl-C.
    host
        Address to listen at. Beyond this machine a token is needed, which the printed address holds.
    port
        Port to listen at; 0 for any that is free.
    token
        Ask for a token on this machine too.
    allow_host
        Further names under which the page may be asked for, such as that of a proxy.
    data
        The input file, if it is no longer where it was scored.
    images
        The image folder, if it is no longer where it was.
    allow_outside
        Follow image paths that leave the image folder.
    results
        A review whose results to print.
    with_careless
        With --results: count raters who failed the checks, too.
    json_text
        With --results: print JSON.
    export
        Write the pairs for Label Studio instead, beside the review's file.
    import_file
        JSON that Label Studio exported, to add to the review in --out.
    """
    if results is not None:
        _print_results(read_results(results, with_careless=with_careless), json_text)
        return
    if import_file is not None and out is not None:
        _import(import_file, out)
        return
    if run is None or out is None:
        raise SettingsError("expected RUN and --out FILE, or --results FILE")
    folder = RunFolder.open(run)
    wanted = Wanted(selection=selection, against=against, n_pairs=pairs, n_sheets=sheets, seed=seed)
    store = begin_review(folder, out, wanted)
    drawn = store.pairs()
    limits = ImageLimits(allow_outside=allow_outside)
    book = SampleBook.open(folder, drawn, seed=store.review.seed, data=data, images=images, limits=limits)
    _describe(store, out)
    if export is not None:
        for path in export_label_studio(drawn, book, out):
            print(f"Wrote {path}")
    if serve:
        _serve(store, book, host, port, with_token=token, names=allow_host or [])
    elif export is None:
        print("Serve it with --serve; the results are printed by: delta-attnmask review --results FILE")


def _import(file: Path, out: Path) -> None:
    store = ReviewStore.open(out)
    n_answers = import_label_studio(file, store)
    print(f"{out}: holds the {n_answers:,} answers of {printable(str(file))}")


def _describe(store: ReviewStore, out: Path) -> None:
    drawn, review = store.pairs(), store.review
    counts = {kind: sum(pair.kind == kind for pair in drawn) for kind in ("compare", "sheet")}
    n_checks = len(drawn) - sum(counts.values())
    print(
        printable(
            f"{out}: {counts['compare']} pairs ({review.selection}, against {review.against}), "
            f"{counts['sheet']} of sets, and {n_checks} checks of the raters"
        )
    )
    if not any(pair.kind == "shuffled" for pair in drawn):
        print("WARNING: no instruction has enough words to shuffle, so repeated pairs alone tell careless raters")
    if counts["compare"] < review.n_pairs:
        print(f"WARNING: {review.n_pairs} pairs were asked for, but both sides share no more rows within sources")


def _serve(store: ReviewStore, book: SampleBook, host: str, port: int, *, with_token: bool, names: list[str]) -> None:
    try:
        from delta_attnmask.reviewing.guard import Access
        from delta_attnmask.reviewing.server import ReviewServer, listen, make_address, serve
    except ModuleNotFoundError as error:
        raise SettingsError(f"serve: {error.name} is missing; pip install 'delta-attnmask[ui]'") from error
    access = Access.to(host, with_token=with_token, names=names)
    listening = listen(host, port)
    address = make_address(host, listening.getsockname()[1], access.token)
    print(f"Open {address}\nCtrl-C stops; every answer is on the disk by then.", flush=True)
    serve(ReviewServer(store, book, access), listening)


def _print_results(results: ReviewResults, as_json: bool) -> None:
    if as_json:
        print(json.dumps(results.to_dict(), indent=1, ensure_ascii=False))
        return
    if not results.raters:
        print(f"Nobody has judged yet: {results.n_drawn} pairs are waiting.")
        return
    rows = [(question.name, *_cells(question.overall), *_agreement(question)) for question in results.questions]
    columns = ["question", "pairs", "won", "tied", "lost", "win rate", "95 %", "can't tell", "alpha", "ordinal"]
    print_table(printable(f"{results.review.selection}, against {results.review.against}"), columns, rows)
    overall = next(question for question in results.questions if question.name == "overall")
    for group, rates in (("source", overall.by_source), ("rater", overall.by_rater)):
        if len(rates) > 1:
            lines = [(name or "(none)", *_cells(rate)) for name, rate in rates.items()]
            print_table(f"overall by {group}; --json has the other questions", [group, *columns[1:7]], lines)
    _print_raters(results)
    for sentence in results.sentences:
        print(printable(sentence))


def _cells(rate: WinRate) -> tuple[object, ...]:
    if rate.rate is None:
        return (0, "-", "-", "-", "-", "-")
    interval = f"{percent(rate.low)} to {percent(rate.high)}"
    return (rate.n_pairs, rate.n_won, rate.n_tied, rate.n_lost, percent(rate.rate), interval)


def _agreement(question: QuestionResult) -> tuple[object, ...]:
    alphas = (question.alpha_nominal, question.alpha_ordinal)
    return (question.n_unknown, *("-" if alpha is None else f"{alpha:.2f}" for alpha in alphas))


def _print_raters(results: ReviewResults) -> None:
    lines = [
        (
            rater.name,
            rater.n_pairs,
            "-" if rater.seconds is None else f"{rater.seconds:g}",
            f"{rater.checks.n_passed} of {rater.checks.n_shuffled}",
            f"{rater.checks.n_contradicted} of {rater.checks.n_repeated}",
            "no" if rater.excluded else "yes" if rater.is_checked else "yes, with too few checks",
        )
        for rater in results.raters
    ]
    columns = ["rater", "pairs", "s an answer", "checks passed", "contradicted", "counted"]
    print_table("Raters", columns, lines)
    for rater in results.raters:
        if rater.excluded:
            print(printable(f"{rater.name} is not counted: {rater.excluded}"))
