"""Prompts processed together come out as each does alone, and are only then processed together."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AyaVisionProcessor, GotOcr2ImageProcessor

from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.encoding.processing import Processing, Prompt
from delta_attnmask.errors import RowError
from delta_attnmask.records import Record
from tests.encoding.wrapped import Wrapped
from tests.reading.prompts import FAMILIES, Prompts, conversation, qwen_tokenizer, template, text_only

in_every_family = pytest.mark.parametrize("family", FAMILIES)
Row = tuple[Record, list[Image.Image]]


@cache
def prompts(family: str) -> Prompts:
    return FAMILIES[family]()


def pictures(*sizes: tuple[int, int], seed: int = 0) -> list[Image.Image]:
    random = np.random.default_rng(seed)
    return [Image.fromarray(random.integers(0, 255, (height, width, 3), dtype=np.uint8)) for width, height in sizes]


@cache
def aya() -> Prompts:
    """A processor that pads, on the left, unless it is told not to."""
    structure = ["<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "TILE_GLOBAL", "TILE"]
    tokenizer = qwen_tokenizer(added=structure)
    tokenizer.pad_token = "<|im_end|>"
    images = GotOcr2ImageProcessor(size={"height": 28, "width": 28}, crop_to_patches=False)
    text = template("internvl").replace("<IMG_CONTEXT>", "<image>")
    processor = AyaVisionProcessor(images, tokenizer, patch_size=14, img_size=28, chat_template=text)
    return Prompts(processor, processor.image_token_id, "<|im_start|>assistant\n", "<|im_end|>")


def rows() -> list[Row]:
    """One image of two sizes, two of the same size, none; texts of many lengths, in no order."""
    one = [
        (
            conversation((None, "What? " * n), "A cat. " * (n + 1), row=n),
            pictures((40, 60) if n % 3 else (90, 30), seed=n),
        )
        for n in range(8)
    ]
    two = [
        (
            conversation((None, "This?"), "Red.", (None, "That?"), "Blue " * n, row=n),
            pictures((40, 60), (40, 60), seed=n),
        )
        for n in range(10, 14)
    ]
    none = [(conversation("Why? " * n, "So. " * (20 - n), row=n), []) for n in range(14, 18)]
    return [*one[:4], *none[:2], *two, *none[2:], *one[4:]]


def check_same(found: EncodedSample | RowError, expected: EncodedSample) -> None:
    assert isinstance(found, EncodedSample)
    assert (found.row, found.images, found.answers) == (expected.row, expected.images, expected.answers)
    assert found.n_image_tokens == expected.n_image_tokens
    assert torch.equal(found.labels, expected.labels)
    assert found.inputs.keys() == expected.inputs.keys()
    for name, tensor in expected.inputs.items():
        assert found.inputs[name].dtype == tensor.dtype
        assert torch.equal(found.inputs[name], tensor), name


def counting(found: Prompts, change: Any = None, **options: Any) -> tuple[Encoder, list[int]]:
    """An encoder, and how many prompts each call of its processor is given."""
    wrapped = Wrapped(found.processor, change)
    return Encoder(wrapped, found.image_token_id, **options), wrapped.n_prompts


@in_every_family
def test_together_as_alone(family: str) -> None:
    alone, (together, calls) = prompts(family).encoder(), counting(prompts(family))
    for _ in range(2):  # the second time every kind is known
        for found, (record, images) in zip(together.encode_all(rows()), rows(), strict=True):
            check_same(found, alone.encode(record, images))
    tried, known = calls[: -len(set(kinds()))], calls[-len(set(kinds())) :]
    assert sorted(known) == sorted(kinds().count(kind) for kind in set(kinds()))
    assert sum(tried) == len(rows()) + 2 * len(set(kinds()))


def kinds() -> list[tuple[tuple[int, int], ...]]:
    return [tuple(image.size for image in images) for _, images in rows()]


def test_a_processor_that_pads_by_itself() -> None:
    """The first two are as long as each other, so that they show no padding."""
    alike = [(conversation((None, word), "Yes.", row=n), pictures((40, 60), seed=n)) for n, word in enumerate("ab")]
    longer = [(conversation((None, "c " * n), "Yes.", row=n), pictures((40, 60), seed=n)) for n in range(2, 9)]
    n_tokens = [aya().encoder().encode(*row).n_tokens for row in longer]
    assert len(set(n_tokens)) == len(longer)
    encoder, calls = counting(aya(), max_tokens=n_tokens[-2])
    *found, refused = encoder.encode_all([*alike, *longer])
    for sample, row in zip(found, [*alike, *longer[:-1]], strict=True):
        check_same(sample, aya().encoder().encode(*row))
    assert isinstance(refused, RowError)
    assert calls == [1, 1, 2, 7]


def test_large_pixels_go_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is how many a processor makes, not how many it is given."""
    some = [(conversation((None, "What?"), "Cat. " * (n + 1), row=n), pictures((40, 60), seed=n)) for n in range(7)]
    n_bytes = prompts("LLaVA-1.5").encoder().encode(*some[0]).inputs["pixel_values"].nbytes
    for allowed, expected in ((n_bytes, [1] * 5), (n_bytes * 2, [2, 2, 1]), (n_bytes * 4, [4, 1])):
        monkeypatch.setattr("delta_attnmask.encoding.processing._MAX_BYTES", allowed)
        encoder, calls = counting(prompts("LLaVA-1.5"))
        for sample, row in zip(encoder.encode_all(some), some, strict=True):
            check_same(sample, prompts("LLaVA-1.5").encoder().encode(*row))
        assert calls == [1, 1, 2, *expected]


def test_many_images_a_row_go_one_by_one() -> None:
    encoder, calls = counting(prompts("LLaVA-1.5"))
    found = encoder.encode_all([(conversation((None,) * 9, "Cats."), pictures(*[(9, 9)] * 9)) for _ in range(3)])
    assert all(isinstance(sample, EncodedSample) for sample in found)
    assert max(calls) == 1


def test_text_alone() -> None:
    found, calls = counting(text_only())
    texts = [(conversation("Why? " * n, "So. " * (9 - n), row=n), []) for n in range(8)]
    for sample, (record, images) in zip(found.encode_all(texts), texts, strict=True):
        check_same(sample, text_only().encoder().encode(record, images))
    assert calls == [1, 1, 2, 6]


@in_every_family
def test_a_bad_row_takes_no_other_with_it(family: str) -> None:
    found = prompts(family)
    good = rows()[:4]
    n_tokens = max(found.encoder().encode(*row).n_tokens for row in good)
    bad = [
        (conversation((None, "x"), found.tokenizer.eos_token), pictures((40, 60))),
        (conversation((None, "word " * 500), "Yes."), pictures((40, 60))),
        (conversation((None, "One?"), "Yes."), pictures((40, 60), (40, 60))),  # an image too many
    ]
    outcomes = found.encoder(max_tokens=n_tokens).encode_all([bad[0], *good, *bad[1:]])
    for outcome, row in zip(outcomes[1:5], good, strict=True):
        check_same(outcome, found.encoder().encode(*row))
    for outcome, reason in zip(
        (outcomes[0], *outcomes[5:]), ("special token", "more than", "processor refuses"), strict=True
    ):
        assert isinstance(outcome, RowError)
        assert reason in str(outcome)


def _fail_together(found: dict[str, Any], n_prompts: int) -> dict[str, Any]:
    if n_prompts > 1:
        raise ValueError("one at a time")
    return found


CHANGES = {
    "other pixels": lambda found, n: found | {"pixel_values": found["pixel_values"] + (n > 1)},
    "another type": lambda found, n: (
        found | {"pixel_values": found["pixel_values"].to([torch.float32, torch.float64][n > 1])}
    ),
    "a name more": lambda found, n: found | ({"more": torch.zeros(n)} if n > 1 else {}),
    "a name less": lambda found, n: {
        name: value for name, value in found.items() if n == 1 or name != "attention_mask"
    },
    "one row too many": lambda found, n: (
        found | ({"pixel_values": torch.cat([found["pixel_values"]] * 2)[: n + 1]} if n > 1 else {})
    ),
    "no tensor": lambda found, n: found | ({"pixel_values": found["pixel_values"].numpy()} if n > 1 else {}),
    "a list of texts": lambda found, n: found | ({"more": ["a"] * n} if n > 1 else {}),
    "a longer list": lambda found, n: found | ({"more": [1.0] * (n + 1)} if n > 1 else {}),
    "padding": lambda found, n: (
        found | ({"attention_mask": [[0, *ones[1:]] for ones in found["attention_mask"]]} if n > 1 else {})
    ),
    "a number": lambda found, n: found | ({"pixel_values": torch.tensor(1.0)} if n > 1 else {}),
    "a failure": _fail_together,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_processed_one_by_one(change: str) -> None:
    found = prompts("LLaVA-1.5")
    encoder, calls = counting(found, CHANGES[change])
    some = [(conversation((None, "What?"), "Cat. " * (n + 1), row=n), pictures((40, 60), seed=n)) for n in range(5)]
    for _ in range(2):
        for outcome, (record, images) in zip(encoder.encode_all(some), some, strict=True):
            check_same(outcome, found.encoder().encode(record, images))
    assert calls == [1, 1, 2, 1, 1, 1] + [1] * 5


def _fail_among_many(found: dict[str, Any], n_prompts: int) -> dict[str, Any]:
    return _fail_together(found, int(n_prompts > 2) + 1)


def _shrink_among_many(found: dict[str, Any], n_prompts: int) -> dict[str, Any]:
    """A budget of pixels for the whole call."""
    return found | ({"pixel_values": found["pixel_values"][..., :7]} if n_prompts > 2 else {})


@pytest.mark.parametrize("change", [_fail_among_many, _shrink_among_many])
def test_what_differs_among_many_is_processed_one_by_one(change: Any) -> None:
    found = prompts("LLaVA-1.5")
    encoder, calls = counting(found, change)
    some = [(conversation((None, "What?"), "Cat. " * (n + 1), row=n), pictures((40, 60), seed=n)) for n in range(5)]
    for _ in range(2):
        for outcome, (record, images) in zip(encoder.encode_all(some), some, strict=True):
            check_same(outcome, found.encoder().encode(record, images))
    assert calls == [1, 1, 2, 3, 1, 1, 1] + [5] + [1] * 5


def test_a_failure_among_known_prompts_is_the_rows_own() -> None:
    found = prompts("LLaVA-1.5")

    def refuse(inputs: dict[str, Any], n_prompts: int) -> dict[str, Any]:
        if any(77 in list(map(int, ids)) for ids in inputs["input_ids"]):
            raise ValueError("77 isn't liked")
        return inputs

    processing = Processing(Wrapped(found.processor, refuse))
    plain = [Prompt(f"<image> {word}", tuple(pictures((40, 60)))) for word in ("cat", "red", "two", "yes")]
    word = found.tokenizer.convert_ids_to_tokens(77)
    assert not any(isinstance(outcome, RowError) for outcome in processing.run_all(plain))
    bad = Prompt(f"<image>{found.tokenizer.convert_tokens_to_string([word])}", plain[0].images)
    outcomes = processing.run_all([plain[0], bad, plain[1]])
    assert [isinstance(outcome, RowError) for outcome in outcomes] == [False, True, False]
    assert "77 isn't liked" in str(outcomes[1])


def test_kinds_are_forgotten_before_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delta_attnmask.encoding.processing._MAX_KINDS", 3)
    processing = Processing(prompts("LLaVA-1.5").processor)
    for width in range(30, 40):
        prompt = Prompt("<image> cat", tuple(pictures((width, 30))))
        assert len(processing.run_all([prompt, prompt])) == 2
        assert len(processing._n_bytes) <= 3
