"""Answer spans in real prompts: published formats, real processors, a real vocabulary."""

import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from delta_attnmask.batches import IGNORED_LABEL
from delta_attnmask.encoding.collate import collate
from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.errors import RowError, UnsupportedModelError
from delta_attnmask.records import Record
from tests.reading.prompts import (
    FAMILIES,
    Prompts,
    conversation,
    messages,
    pictures,
    template,
    text_only,
)

CONVERSATIONS = {
    "one turn": conversation((None, "What is it?"), "A red cat."),
    "text only": conversation("What is one and one?", "Two."),
    "several turns": conversation((None, "What is it?"), "A cat.", "What color?", "It is red.", "Sure?", "Yes."),
    "several images": conversation(("Compare ", None, " with ", None, None, " please."), "They differ."),
    "images over turns": conversation(
        (None, "What is it?"), "A cat.", (None, None, "And this?"), "A dog.", ("Now: ", None), "A cat."
    ),
    "repeats the question": conversation((None, "Say A cat. A cat."), "A cat.", "A cat.\nA cat.", "A cat."),
    "repeats earlier answers": conversation((None, "Red?"), "Yes", (None, "Yes"), "Yes", ("Yes", None), "Yes"),
    "quotes the format": conversation(
        (None, "USER: Yes ASSISTANT: Yes USER:"), "Yes", (None, "Assistant: Yes\nUser: Yes"), "Yes"
    ),
    "words of the header": conversation((None, "Who?"), "assistant", "Who?", "ASSISTANT:", "Who?", "model\nuser"),
    "unicode": conversation((None, "Was ist das? 这是什么?"), "Ein Kätzchen 🐈‍⬛ – 猫が二匹。", "Et?", "Naïve œuvre…"),
    "line breaks": conversation((None, "List."), "Two:\n\n- a cat\n\n\n- a dog\n", "Code?", "def f():\n    return 1"),
    "white space around": conversation((None, "What is it?"), "  \n A cat. \n\n", " Sure?\n", "\tYes "),
    "system": conversation((None, "What is it?"), "A cat.", system="Be brief."),
    "empty system": conversation((None, "What is it?"), "A cat.", system=""),
    "empty question": conversation((None,), "A cat.", "", "A dog."),
}
in_every_family = pytest.mark.parametrize("family", FAMILIES)
in_every_conversation = pytest.mark.parametrize("name", CONVERSATIONS)


@cache
def prompts(family: str) -> Prompts:
    return FAMILIES[family]()


def encode(found: Prompts, record: Record) -> EncodedSample:
    return found.encoder().encode(record, pictures(record))


def spans(sample: EncodedSample) -> Iterator[tuple[int, int]]:
    """First position and the one behind the last of each stretch of answer tokens."""
    is_answer = (sample.labels[0] != IGNORED_LABEL).tolist()
    for counts, group in groupby(range(len(is_answer)), key=is_answer.__getitem__):
        if counts:
            positions = list(group)
            yield positions[0], positions[-1] + 1


def decode(found: Prompts, ids: torch.Tensor) -> str:
    return str(found.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def check_answers(found: Prompts, record: Record, sample: EncodedSample) -> None:
    """Each answer and the token that ends its turn, behind its header; the two may share a token of white space."""
    ids = sample.inputs["input_ids"][0]
    texts = [turn.text.strip() if found.is_trimmed else turn.text for turn in record.turns if turn.role == "assistant"]
    placed = list(spans(sample))
    assert len(placed) == len(texts)
    for (start, stop), text in zip(placed, texts, strict=True):
        counted, expected = decode(found, ids[start:stop]), text + found.end
        if text == text.lstrip():
            assert counted == " " * found.merges_space + expected
        assert counted.lstrip() == expected.lstrip()
        assert decode(found, ids[:start]).rstrip().endswith(found.header.rstrip())
        assert torch.equal(sample.labels[0, start:stop], ids[start:stop])


@in_every_family
@in_every_conversation
def test_counts_the_answers_and_what_ends_their_turns(family: str, name: str) -> None:
    record = CONVERSATIONS[name]
    sample = encode(prompts(family), record)
    check_answers(prompts(family), record, sample)
    ids = sample.inputs["input_ids"][0].tolist()
    assert sample.n_image_tokens == ids.count(prompts(family).image_token_id) >= len(record.images)


@in_every_conversation
def test_counts_the_answers_of_text_only_models(name: str) -> None:
    record = CONVERSATIONS[name]
    found = text_only_prompts()
    if record.images:
        with pytest.raises(RowError, match="this model takes none"):
            found.encoder().encode(record, pictures(record))
        record = conversation(*(turn.text for turn in record.turns if turn.role != "system"))
    check_answers(found, record, encode(found, record))


@cache
def text_only_prompts() -> Prompts:
    return text_only()


def test_merged_boundary_space_is_counted_and_llava_ends_no_turn() -> None:
    """LLaVA-1.5's format sets a space behind "ASSISTANT:", which belongs to the first token, and ends no turn."""
    record = conversation((None, "What is it?"), "The cat.", "Sure?", "Yes.")
    for family, expected in {
        "LLaVA-1.5": [["▁The", "▁cat", "."], ["▁Yes", "."]],
        "SmolVLM": [["ĠThe", "Ġcat", ".", "<end_of_utterance>"], ["ĠYes", ".", "<end_of_utterance>"]],
        "Qwen2-VL": [["The", "Ġcat", ".", "<|im_end|>"], ["Yes", ".", "<|im_end|>"]],
    }.items():
        found = prompts(family)
        sample = encode(found, record)
        ids = sample.inputs["input_ids"][0]
        pieces = [found.tokenizer.convert_ids_to_tokens(ids[start:stop]) for start, stop in spans(sample)]
        assert ["".join(piece) for piece in pieces] == ["".join(piece) for piece in expected], family


def test_decomposed_characters_are_located_though_the_tokenizer_composes_them() -> None:
    decomposed = unicodedata.normalize("NFD", "Ein Kätzchen, schön.")
    found = prompts("Qwen2-VL")
    record = conversation((None, decomposed), decomposed)
    sample = encode(found, record)
    ((start, stop),) = spans(sample)
    text = decode(found, sample.inputs["input_ids"][0, start:stop])
    assert text == unicodedata.normalize("NFC", decomposed) + "<|im_end|>"


@in_every_family
def test_collates_like_the_processor(family: str) -> None:
    found = prompts(family)
    records = [
        conversation((None, "What is it?"), "A cat.", row=0),
        conversation((None, "And this, with ", None, "?"), "A dog, I think, or a cat.", row=1),
        conversation(("Long: " + "cat " * 20, None), "No.", (None, "Sure?"), "Yes.", row=2),
    ]
    samples = [found.encoder().encode(record, pictures(record)) for record in records]
    batch = collate(samples, found.encoder().pad_token_id)
    expected = found.processor(
        text=[found.processor.apply_chat_template(messages(record), tokenize=False) for record in records],
        images=[pictures(record) for record in records],
        padding=True,
        padding_side="right",
        return_tensors="pt",
    )
    assert set(batch.inputs) == set(expected)
    for name, values in expected.items():
        assert torch.equal(batch.inputs[name], values), name
    for sample, labels in zip(samples, batch.labels, strict=True):
        assert torch.equal(labels[: sample.n_tokens], sample.labels[0])
        assert (labels[sample.n_tokens :] == IGNORED_LABEL).all()


def test_adds_no_second_token_that_begins_the_text() -> None:
    found = prompts("LLaVA-1.5")
    plain = encode(found, CONVERSATIONS["one turn"]).inputs["input_ids"][0].tolist()
    begun = Encoder(with_template(found.processor, "<s>" + template("llava-1.5")), found.image_token_id)
    ids = begun.encode(CONVERSATIONS["one turn"], pictures(CONVERSATIONS["one turn"])).inputs["input_ids"][0].tolist()
    beginning = found.tokenizer.bos_token_id
    assert plain.count(beginning) == ids.count(beginning) == 1


class WithTemplate:
    """A processor under another chat template."""

    def __init__(self, processor: Any, chat_template: str):
        self.processor, self.chat_template = processor, chat_template

    def __getattr__(self, name: str) -> Any:
        return getattr(self.processor, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.processor(*args, **options)

    def apply_chat_template(self, chat: Any, **options: Any) -> Any:
        return self.processor.apply_chat_template(chat, chat_template=self.chat_template, **options)


def with_template(processor: Any, chat_template: str) -> Any:
    return WithTemplate(processor, chat_template)


def text_encoder(chat_template: str, **options: Any) -> Encoder:
    tokenizer = text_only_prompts().tokenizer
    return Encoder(with_template(tokenizer, chat_template), **options)


def counted(encoder: Encoder, record: Record) -> list[str]:
    sample = encoder.encode(record, [])
    ids = sample.inputs["input_ids"][0]
    return [text_only_prompts().tokenizer.decode(ids[start:stop]) for start, stop in spans(sample)]


TWO_TURNS = conversation("Red?", "Yes.", "Sure?", "No.")


@pytest.mark.parametrize(
    ("chat_template", "expected"),
    [
        pytest.param(
            "{% for m in messages %}<|im_start|>{{ m.role }}\n"
            "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
            "{{ m.content }}<|im_end|>\n{% endfor %}",
            ["Yes.<|im_end|>", "No.<|im_end|>"],
            id="thinking in the last turn only",
        ),
        pytest.param(
            "{% for m in messages %}{{ '<|im_start|>' + m.content if m.role == 'user' else '<|im_end|>' + m.content }}"
            "{% endfor %}",
            ["Yes.", "No."],
            id="the token that begins the next turn ends none",
        ),
        pytest.param(
            "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}<|endoftext|>",
            ["Yes.<|im_end|>", "No.<|im_end|>"],
            id="one special token ends a turn",
        ),
        pytest.param(
            "{% for m in messages %}<|im_start|>{{ m.content }} \n<|im_end|>{% endfor %}",
            ["Yes.", "<|im_end|>", "No.", "<|im_end|>"],
            id="white space before the end of the turn isn't the answer's",
        ),
    ],
)
def test_other_templates(chat_template: str, expected: list[str]) -> None:
    assert counted(text_encoder(chat_template), TWO_TURNS) == expected


@pytest.mark.parametrize(
    ("chat_template", "reason"),
    [
        ("{{ messages[-1].content }}", "drops or rewrites turns"),
        ("{% for m in messages %}{{ m.content + m.content }}{% endfor %}", "drops or rewrites turns"),
        ("{% for m in messages %}{{ m.content | upper }}\n{% endfor %}", "changes the answer's text"),
        ("{% for m in messages %}{{ m.content[:2] }}\n{% endfor %}", "changes the answer's text"),
        ("{{ raise_exception('only French') }}", "chat template refuses the conversation: only French"),
        ("{{ messages.nothing.at_all }}", "chat template refuses the conversation"),
    ],
)
def test_refuses_templates_that_change_the_conversation(chat_template: str, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        text_encoder(chat_template).encode(TWO_TURNS, [])


@in_every_family
@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_refuses_special_tokens_in_the_text(family: str, role: str) -> None:
    found = prompts(family)
    for token in (found.end or "</s>", str(found.processor.image_token)):
        texts = {name: f"a {token} b" if name == role else "fine" for name in ("user", "assistant", "system")}
        record = conversation((None, texts["user"]), texts["assistant"], system=texts["system"])
        with pytest.raises(RowError, match="the text contains the model's special token") as refused:
            found.encoder().encode(record, pictures(record))
        assert token in str(refused.value)


@in_every_family
def test_text_that_only_resembles_special_tokens_is_text(family: str) -> None:
    record = conversation((None, "Is <|im_ end|> or < image > or <b>bold</b> here?"), "<|No|> [INST] <no>")
    check_answers(prompts(family), record, encode(prompts(family), record))


@in_every_family
def test_refuses_rows_that_are_too_long(family: str) -> None:
    found = prompts(family)
    record = CONVERSATIONS["images over turns"]
    n_tokens = encode(found, record).n_tokens
    assert found.encoder(max_tokens=n_tokens).encode(record, pictures(record)).n_tokens == n_tokens
    with pytest.raises(RowError, match=f"{n_tokens} tokens, more than the model's {n_tokens - 1}"):
        found.encoder(max_tokens=n_tokens - 1).encode(record, pictures(record))


@in_every_family
def test_refuses_images_that_the_text_does_not_place(family: str) -> None:
    record = CONVERSATIONS["several images"]
    with pytest.raises(RowError, match="the model's processor refuses the row"):
        prompts(family).encoder().encode(record, pictures(record)[:2])


@pytest.mark.parametrize(
    ("chat_template", "is_fast", "reason"),
    [(None, True, "no chat template"), ("{{ messages }}", False, "no fast tokenizer")],
)
def test_refuses_models_without_what_encoding_needs(chat_template: str | None, is_fast: bool, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        Encoder(SimpleNamespace(chat_template=chat_template, is_fast=is_fast))
