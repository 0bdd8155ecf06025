"""The benchmarks' short way through a model gives what the whole model gives on the product's encoding."""

import json

import numpy as np
import pytest
import torch
from benchmarks.evidence.training import AUGMENTATIONS, Recipe, finetune
from benchmarks.suite import bases, cached
from embedded.build import SHIPPED
from PIL import Image as PILImage
from transformers import AutoProcessor

from delta_attnmask.batches import IGNORED_LABEL
from delta_attnmask.encoding.encoder import make_encoder
from delta_attnmask.modeling.load import load_model
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.settings import MaskSettings

TEXTS = [("What is this?", "a dog"), ("Is this a cat? Answer in a sentence.", "No, this is a dog."), ("Añadir?", "é 3")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny base with the embedded model's tokenizer, saved as a Hugging Face folder."""
    torch.manual_seed(0)
    tokenizer = AutoProcessor.from_pretrained(SHIPPED / "model").tokenizer
    folder = tmp_path_factory.mktemp("base")
    bases.save(bases.make_model(bases.SHAPES["tiny"], tokenizer), tokenizer, folder)
    return folder


@pytest.fixture
def base(saved):
    return bases.load(saved)


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in TEXTS]


@pytest.fixture
def rows(base, pixels):
    model, tokenizer = base
    return cached.make_rows(model.model.vision_tower, tokenizer, TEXTS, pixels)


def encoded(saved, pixels, folder):
    """The same rows by the product's own reading and encoding, and its model."""
    loaded = load_model(str(saved), dtype="float32", device="cpu")
    encoder = make_encoder(loaded)
    entries = []
    for i, (text, picture) in enumerate(zip(TEXTS, pixels, strict=True)):
        PILImage.fromarray(picture).save(folder / f"{i}.png")
        turns = [{"from": "human", "value": f"<image>\n{text[0]}"}, {"from": "gpt", "value": text[1]}]
        entries.append({"image": f"{i}.png", "conversations": turns})
    (folder / "rows.json").write_text(json.dumps(entries))
    dataset = FileRows(folder / "rows.json", folder)
    for record in dataset:
        yield loaded.model, encoder.encode(record, [dataset.load_image(image) for image in record.images])


def test_rows_are_what_the_products_encoder_makes(saved, pixels, rows, tmp_path):
    for i, (_, sample) in enumerate(encoded(saved, pixels, tmp_path)):
        assert sample.inputs["input_ids"][0].tolist() == rows.tokens[i].tolist()
        assert (sample.labels[0] != IGNORED_LABEL).tolist() == rows.is_answer[i].tolist()


def test_loss_from_cached_features_is_the_whole_models(saved, pixels, rows, base, tmp_path):
    for i, (model, sample) in enumerate(encoded(saved, pixels, tmp_path)):
        with torch.no_grad():
            whole = model(**sample.inputs, labels=sample.labels).loss
            short = cached.answer_loss(base[0], cached.gather(rows, [i]))
        assert short.item() == pytest.approx(whole.item(), rel=5e-3)  # the short way multiplies in bfloat16


def test_padding_changes_nothing(rows, base):
    with torch.no_grad():
        alone = [cached.answer_logits(base[0], cached.gather(rows, [i]))[0] for i in range(len(rows))]
        together, _ = cached.answer_logits(base[0], cached.gather(rows, range(len(rows))))
    assert torch.allclose(torch.cat(alone).float(), together.float(), atol=2e-2)


def test_exact_match_after_learning_by_heart(rows, base):
    model, _ = base
    assert not cached.exact_match(model, rows).all()
    finetune(model, rows, Recipe(lr=2e-2, epochs=40, batch=3), seed=0)
    assert cached.exact_match(model, rows).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_trains_and_leaves_nothing_behind(name, rows, base):
    model, _ = base
    hooked = {name for name, module in model.named_modules() if module._forward_hooks or module._forward_pre_hooks}
    before = model.lm_head.weight.clone()
    mask = MaskSettings(block=-2, fraction=0.4, queries="answer")
    trained = finetune(model, rows, Recipe(epochs=2, batch=2), seed=0, n_steps=4, augmentation=name, mask=mask)
    assert trained.n_steps == 4
    assert not torch.equal(before, model.lm_head.weight)
    after = {name for name, module in model.named_modules() if module._forward_hooks or module._forward_pre_hooks}
    assert after == hooked


def test_without_augmentation_both_ways_train_alike(saved, rows):
    trained = []
    for name in ("", "none"):
        model, _ = bases.load(saved)
        finetune(model, rows, Recipe(epochs=2, batch=3), seed=0, augmentation=name)
        trained.append(model.model.language_model.embed_tokens.weight.detach())
    assert torch.allclose(*trained, atol=5e-3)


def test_the_tower_stays_frozen(saved, rows):
    model, _ = bases.load(saved)
    before = {name: tensor.clone() for name, tensor in model.model.vision_tower.state_dict().items()}
    finetune(model, rows, Recipe(epochs=1, batch=3), seed=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.model.vision_tower.state_dict().items())
