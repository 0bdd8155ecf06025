# ruff: noqa: E501  (rows of Markdown tables are one line each)
"""Writes DATA.md from the counts of a build."""

from __future__ import annotations

from typing import Any

KIND_TEXTS = {
    "image_swapped": "the picture of another row of the source, to which the answers don't fit",
    "image_blank": "an empty picture, to which the answers don't fit",
    "answer_wrong": "a wrong answer of the same form (no yes/no)",
    "yes_no_inverted": "yes for no, or no for yes",
    "number_off": "a count that is off by one",
    "words_shuffled": "the words of an answer in another order",
    "truncated": "an answer cut after some words",
    "generic": '"I am not sure." and the like where the picture tells',
    "other_source": "the answer of a row of another source",
    "question_swapped": "the question of another row of the source, to which the answer doesn't fit",
    "turns_crossed": "the answers of two turns exchanged",
}
SOURCE_TEXTS = {
    "easyvqa": "one coloured shape; the pictures and questions of easy-VQA",
    "emoji": "one emoji on a coloured ground, in four art styles: name, category, size, ground; pairs of pictures",
    "scene": "up to four emoji in the corners: count, find, compare places, list",
    "chart": "bars of runs of real tables: colours, heights, order",
    "clipart": "public-domain drawings: which of 14 topics? The model saw {clipart_train} other drawings in training",
    "fxemoji": "as emoji, in a fifth art style that the model never saw in training",
    "text": "no picture: categories of things, repeating a sentence or its start",
}

TEMPLATE = """\
# The embedded data set

{pool_rows} conversations to choose from (`pool.json`) and {test_rows} to test on (`test.json`), in LLaVA's JSON form, over
{n_images} pictures of 64 x 64 pixels (`images.zip`; the paths in the JSON are the paths in the zip). {n_defects} pool rows
({defect_share:.0%}) have a planted defect. `defects.json` names them (`{{"pool row number": "kind"}}`); rows that it doesn't
name are clean. It is for measuring only: no scoring code reads it.

| Source | Pool | Test | What it asks |
|---|---|---|---|
{source_rows}

| | Pool | Test |
|---|---|---|
{count_rows}

| Defect | Rows | What was done |
|---|---|---|
{defect_rows}

Every defect makes its row wrong: it is checked against what is known of the picture. In a row of several turns, a defect
of the answer changes every turn that it fits. Every word and phrase that a defect leaves behind also occurs in clean rows:
cut sentences are the right answer to "Repeat the first three words of this sentence: ...", the generic phrases to questions
about things that are missing, empty pictures to "How many things are there?".

## What is shared between pool, test and training

No picture (by its pixels) is in two of them. But the drawings are shared: the same {n_concepts} things, in the same art
styles, occur in pool, test and training in other compositions (place, size, ground, neighbours, mirrored or not), except
that the style of `fxemoji` isn't in training. easy-VQA's pictures are split as they are: 2,800 for training, 200 for
development, the other 1,000 of its training part for the pool, its test part for the test set. Charts show runs of the same
real tables that start at other rows. Drawings of `clipart` that look alike or differ in their file name by digits only
are in one part. The facts of `text` rows are the same everywhere.

## What it is not

No photographs, no natural scenes, no free-form dialogue: small drawings with questions from fixed wordings, whose right
answers are known. Figures on it say how a score behaves on such data, not on yours.

Licences and attributions: `LICENSES.md`. Fingerprint of this build: `{fingerprint}`.
"""


def data_card(summary: dict[str, Any], n_concepts: int, clipart_train: int) -> str:
    """DATA.md from `build.summary`."""
    pool, test = summary["pool"], summary["test"]
    sources = [
        f"| {name} | {pool['sources'][name]} | {test['sources'][name]} | {text.format(clipart_train=clipart_train)} |"
        for name, text in SOURCE_TEXTS.items()
    ]
    defects = [f"| {kind} | {summary['defects'][kind]} | {text} |" for kind, text in KIND_TEXTS.items()]
    n_defects = sum(summary["defects"].values())
    return TEMPLATE.format(
        pool_rows=f"{pool['rows']:,}", test_rows=test["rows"], n_images=f"{pool['images'] + test['images']:,}", n_defects=n_defects,
        defect_share=n_defects / pool["rows"], source_rows="\n".join(sources), count_rows="\n".join(_count_rows(pool, test)),
        defect_rows="\n".join(defects), n_concepts=n_concepts, fingerprint=summary["fingerprint"],
    )  # fmt: skip


def _count_rows(pool: dict[str, Any], test: dict[str, Any]) -> list[str]:
    names = (
        "rows",
        "images",
        "rows that share an image",
        "two images",
        "no image",
        "answers of one word",
        "answers of four words or more",
    )
    rows = [f"| {name} | {pool[name]} | {test[name]} |" for name in names]
    turns = [
        f"| rows of {n} turn{'s' if n > 1 else ''} | {pool['turns'][n]} | {test['turns'][n]} |"
        for n in sorted(pool["turns"])
    ]
    return [*rows[:2], *turns, *rows[2:]]
