"""The accuracy table of the model card, from shipped files alone: `python -m embedded.evaluate --model FOLDER`.

Every turn of every test row is answered greedily by `generate`, its earlier turns as written in the test set. The same
with the pictures of another row of the source (its answers then seldom fit: what is left is what the question alone
gives away) and with grey pictures. "Majority" answers each question with the commonest answer to that question in the
clean part of the pool (or, where the pool doesn't have it, with the commonest of the source).
"""

from __future__ import annotations

import argparse
import io
import json
import random
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image as PILImage
from transformers import AutoModelForImageTextToText, AutoProcessor

from .build import SHIPPED

Message = dict[str, str]
Condition = Callable[[dict[str, object]], list[PILImage.Image]]


@dataclass(frozen=True, slots=True)
class Asked:
    """One turn to answer: everything up to its question, and the reference."""

    source: str
    messages: list[Message]
    answer: str
    row: dict[str, object]

    @property
    def question(self) -> str:
        """The text without picture tags."""
        return self.messages[-1]["content"].replace("<image>\n", "")


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHIPPED / "model")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    model = AutoModelForImageTextToText.from_pretrained(options.model).eval()
    processor = AutoProcessor.from_pretrained(options.model)
    table = accuracy_table(model, processor)
    print(to_markdown(table))
    if options.out:
        options.out.write_text(json.dumps(table, indent=1) + "\n")


def accuracy_table(model: torch.nn.Module, processor: AutoProcessor) -> dict[str, dict[str, float]]:
    """Exact match by source and condition; n counts turns."""
    test = json.loads((SHIPPED / "test.json").read_text())
    asked = [turn for row in test for turn in turns_of(row)]
    with zipfile.ZipFile(SHIPPED / "images.zip") as archive:
        conditions = make_conditions(test, archive)
        answers = {name: answer_all(model, processor, asked, condition) for name, condition in conditions.items()}
    answers["majority"] = majority_answers(asked)
    table: dict[str, dict[str, float]] = {}
    for source in sorted({turn.source for turn in asked}):
        places = [i for i, turn in enumerate(asked) if turn.source == source]
        scores = {
            name: sum(given[i] == asked[i].answer for i in places) / len(places) for name, given in answers.items()
        }
        table[source] = {"n": len(places)} | scores
    return table


def turns_of(row: dict[str, object]) -> list[Asked]:
    """Every question of the row with its history."""
    roles = {"human": "user", "gpt": "assistant"}
    messages = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
    return [Asked(row["source"], messages[:i], messages[i]["content"], row) for i in range(1, len(messages), 2)]


def make_conditions(test: list[dict[str, object]], archive: zipfile.ZipFile) -> dict[str, Condition]:
    """The row's own pictures, those of another row of its source with as many, and grey ones."""
    rng = random.Random(0)
    partner = {row["id"]: _partner(rng, row, test) for row in test}

    def right(row: dict[str, object]) -> list[PILImage.Image]:
        return [PILImage.open(io.BytesIO(archive.read(path))).convert("RGB") for path in paths_of(row)]

    return {
        "right": right, "swapped": lambda row: right(partner[row["id"]]),
        "blank": lambda row: [PILImage.new("RGB", (64, 64), (128, 128, 128)) for _ in paths_of(row)],
    }  # fmt: skip


def paths_of(row: dict[str, object]) -> list[str]:
    """The row's pictures, none, one or several."""
    image = row.get("image", [])
    return [image] if isinstance(image, str) else image


@torch.inference_mode()
def answer_all(
    model: torch.nn.Module, processor: AutoProcessor, asked: Sequence[Asked], condition: Condition, size: int = 32
) -> list[str]:
    """Greedy answers in the order asked."""
    processor.tokenizer.padding_side = "left"
    answers = [""] * len(asked)
    # Alike in length and in whether they have pictures, so that a batch pads little.
    order = sorted(range(len(asked)), key=lambda i: (len(paths_of(asked[i].row)), len(str(asked[i].messages))))
    for start in range(0, len(order), size):
        for places in _by_picture_count(order[start : start + size], asked):
            texts = [processor.apply_chat_template(asked[i].messages, add_generation_prompt=True) for i in places]
            pictures = [picture for i in places for picture in condition(asked[i].row)]
            inputs = processor(text=texts, images=pictures or None, padding=True, return_tensors="pt")
            given = model.generate(**inputs, do_sample=False, max_new_tokens=40)[:, inputs["input_ids"].shape[1] :]
            for i, text in zip(places, processor.batch_decode(given, skip_special_tokens=True), strict=True):
                answers[i] = text
    return answers


def majority_answers(asked: Sequence[Asked]) -> list[str]:
    """What the question alone gives away, by counting in the clean pool."""
    pool = json.loads((SHIPPED / "pool.json").read_text())
    dirty = json.loads((SHIPPED / "defects.json").read_text())
    by_question: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    by_source: dict[str, Counter[str]] = defaultdict(Counter)
    for turn in (turn for i, row in enumerate(pool) if str(i) not in dirty for turn in turns_of(row)):
        by_question[turn.source, turn.question][turn.answer] += 1
        by_source[turn.source][turn.answer] += 1
    found = [by_question.get((turn.source, turn.question)) or by_source[turn.source] for turn in asked]
    return [counts.most_common(1)[0][0] for counts in found]


def to_markdown(table: dict[str, dict[str, float]]) -> str:
    """The table for the model card."""
    columns = ("n", "right", "swapped", "blank", "majority")
    lines = ["| Source | turns | right picture | swapped | grey | majority per question |", "|---|---|---|---|---|---|"]
    for source, row in table.items():
        cells = [str(int(row["n"])), *(f"{row[name]:.3f}" for name in columns[1:])]
        lines.append(f"| {source} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _by_picture_count(places: list[int], asked: Sequence[Asked]) -> list[list[int]]:
    groups: dict[int, list[int]] = defaultdict(list)
    for i in places:
        groups[len(paths_of(asked[i].row))].append(i)
    return list(groups.values())


def _partner(rng: random.Random, row: dict[str, object], rows: list[dict[str, object]]) -> dict[str, object]:
    fitting = [
        r
        for r in rows
        if r["source"] == row["source"] and len(paths_of(r)) == len(paths_of(row)) and paths_of(r) != paths_of(row)
    ]
    return rng.choice(fitting) if fitting else row


if __name__ == "__main__":
    main()
