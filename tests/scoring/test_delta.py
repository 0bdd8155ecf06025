"""The invariants of `score_batch`, on tiny models."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from delta_attnmask import BatchScore, DataError, MaskSettings, SettingsError, score_batch
from delta_attnmask.batches import TokenRoles
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.capture import captured_forward
from delta_attnmask.scoring.delta import loss_batch, sweep_batch
from tests.families import FAMILIES
from tests.families.family import IGNORED, IMAGE, VOCABULARY
from tests.reference import naive_score

ROUNDING = 1e-5
CONTRACT = 1e-4
EVERY_SETTING = [
    MaskSettings(queries=queries, tokens=tokens, replacement=replacement, block=-2)
    for queries, tokens, replacement in product(("all", "answer"), ("all", "prompt", "image"), ("zero", "mean"))
]
NAMES = ("LLaVA", "Qwen2-VL", "Gemma 3", "Idefics3")

Batch = tuple[dict[str, Tensor], Tensor]


@cache
def model(name: str) -> nn.Module:
    return FAMILIES[name].build()


def random_rows(n_rows: int) -> list[Batch]:
    """Conversations of one turn and of many lengths, each a batch of one."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(n_rows):
        n_prompt, n_answer = (int(torch.randint(low, high, (), generator=generator)) for low, high in ((2, 30), (1, 9)))
        ids = torch.randint(16, VOCABULARY, (1, n_prompt + n_answer), generator=generator)
        labels = ids.clone()
        labels[:, :n_prompt] = IGNORED
        rows.append(({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels))
    return rows


def stacked(rows: list[Batch], *, left: bool = False) -> Batch:
    longest = max(labels.shape[1] for _, labels in rows)

    def padded(values: Tensor, filler: int) -> Tensor:
        n_missing = longest - values.shape[1]
        return nn.functional.pad(values, (n_missing, 0) if left else (0, n_missing), value=filler)

    inputs = {name: torch.cat([padded(row[name], 0) for row, _ in rows]) for name in rows[0][0]}
    return inputs, torch.cat([padded(labels, IGNORED) for _, labels in rows])


def columns(score: BatchScore) -> Tensor:
    return torch.stack([score.loss, score.masked_loss, score.delta], dim=1)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_mask_changes_nothing_at_all(name: str) -> None:
    batch = FAMILIES[name].inputs()
    for setting in EVERY_SETTING:
        score = score_batch(model(name), *batch, replace(setting, fraction=0))
        assert (score.delta == 0).all(), setting
        assert not score.is_masked.any()


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_equals_the_reference_in_one_sweep(name: str) -> None:
    family = FAMILIES[name]
    inputs, labels = family.inputs()
    scores = sweep_batch(model(name), inputs, labels, EVERY_SETTING).scores
    for setting, score in zip(EVERY_SETTING, scores, strict=True):
        options: dict[str, Any] = {"layers": family.layers, "eager": family.eager, "image_token": IMAGE}
        expected = naive_score(model(name), inputs, labels, setting, **options)
        assert torch.equal(score.is_masked, expected.is_masked), setting
        assert (score.delta - expected.delta).abs().max() < CONTRACT, setting
        assert (score.loss - expected.loss).abs().max() < CONTRACT, setting


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_gives_what_each_setting_gives_alone(name: str) -> None:
    batch = FAMILIES[name].inputs()
    for setting, score in zip(EVERY_SETTING, sweep_batch(model(name), *batch, EVERY_SETTING).scores, strict=True):
        alone = score_batch(model(name), *batch, setting)
        assert torch.equal(score.is_masked, alone.is_masked)
        assert (columns(score) - columns(alone)).abs().max() < ROUNDING


@pytest.mark.parametrize("name", ["LLaVA", "Llama", "Gemma 2", "GPT-2", "Cohere 2"])
def test_the_tail_from_every_block_is_the_full_forward(name: str) -> None:
    inputs, labels = FAMILIES[name].inputs()
    anatomy = examine(model(name))
    blocks = range(anatomy.last_block + 1)
    roles = TokenRoles.of(inputs, labels, anatomy.image_token_id)
    weights = inputs["attention_mask"][:, None].float()
    with captured_forward(anatomy, inputs, labels, roles, weights, list(blocks)) as forward:
        for block in blocks:
            assert torch.equal(forward.run_tail(block, forward.states[block]), forward.final_rows()), block


@pytest.mark.parametrize("name", ["LLaVA", "Llama"])
def test_masking_any_block_equals_the_reference(name: str) -> None:
    family = FAMILIES[name]
    inputs, labels = family.inputs()
    n_blocks = examine(model(name)).n_blocks
    for block in [*range(n_blocks), *range(-n_blocks, 0)]:
        setting = MaskSettings(block=block)
        expected = naive_score(model(name), inputs, labels, setting, layers=family.layers, image_token=IMAGE)
        score = score_batch(model(name), inputs, labels, setting)
        assert (score.delta - expected.delta).abs().max() < CONTRACT, block


@pytest.mark.parametrize(
    "setting", [MaskSettings.paper(), MaskSettings(queries="answer", order="random", replacement="mean", block=-2)]
)
def test_batch_size_order_and_padding_change_nothing(setting: MaskSettings) -> None:
    rows = random_rows(32)
    llama = model("Llama")
    alone = torch.cat([columns(score_batch(llama, *row, setting)) for row in rows])
    sevens = [columns(score_batch(llama, *stacked(rows[start : start + 7]), setting)) for start in range(0, 32, 7)]
    assert (torch.cat(sevens) - alone).abs().max() < ROUNDING
    shuffled = torch.randperm(32, generator=torch.Generator().manual_seed(1)).tolist()
    for left in (False, True):
        together = columns(score_batch(llama, *stacked([rows[i] for i in shuffled], left=left), setting))
        assert (together - alone[shuffled]).abs().max() < ROUNDING, f"{left=}"


def test_the_same_call_gives_the_same_bits() -> None:
    batch = FAMILIES["LLaVA"].inputs()
    for order in ("most", "random"):
        first, second = (
            score_batch(model("LLaVA"), *batch, MaskSettings(queries="all", order=order, block=-2)) for _ in range(2)
        )
        assert torch.equal(columns(first), columns(second))


def test_loss_alone_is_the_loss() -> None:
    inputs, labels = FAMILIES["LLaVA"].inputs()
    assert (
        loss_batch(model("LLaVA"), inputs, labels)
        - score_batch(model("LLaVA"), inputs, labels, MaskSettings.paper()).loss
    ).abs().max() == 0


def test_the_result() -> None:
    inputs, labels = FAMILIES["LLaVA"].inputs()
    score = score_batch(model("LLaVA"), inputs, labels, MaskSettings.paper())
    for values in (score.loss, score.masked_loss, score.delta, score.saliency):
        assert values.dtype == torch.float32
        assert not values.requires_grad
    assert torch.equal(score.delta, score.masked_loss - score.loss)
    assert score.saliency.shape == score.is_masked.shape == labels.shape
    is_token = inputs["attention_mask"].bool()
    assert (score.saliency[~is_token] == 0).all()
    # Each counted query gives away 1; summed over what was received, that is the number of queries.
    assert (score.saliency.sum(-1) - is_token.sum(-1)).abs().max() < CONTRACT


def test_wrong_input_is_refused_by_name() -> None:
    inputs, labels = FAMILIES["LLaVA"].inputs()
    with pytest.raises(DataError, match=r"samples \[1\] of the batch have no answer token"):
        score_batch(
            model("LLaVA"), inputs, torch.stack([labels[0], torch.full_like(labels[1], IGNORED)]), MaskSettings.paper()
        )
    with pytest.raises(SettingsError, match="block=4: this model has 4 blocks, 0 to 3"):
        score_batch(model("LLaVA"), inputs, labels, MaskSettings(block=4))
    shallow = replace(examine(model("LLaVA")), blocks=examine(model("LLaVA")).blocks[:2])
    with pytest.raises(SettingsError, match=r"block=-4: this model has 2 blocks.*count from the end: -2 to -1"):
        shallow.resolve_block(MaskSettings().block)
    without = inputs | {"input_ids": inputs["input_ids"].clone()}
    with pytest.raises(SettingsError, match=r"tokens='image': samples \[0, 1\] of the batch have no such token"):
        score_batch(model("Llama"), {name: without[name] for name in ("input_ids", "attention_mask")}, labels, IMAGES)


IMAGES = MaskSettings(queries="all", tokens="image", block=-2)


# Nothing is left behind.


def trace(module: nn.Module) -> dict[str, Any]:
    """What scoring may touch, and what identifies it: attributes, hooks, modes, configurations, global tables."""
    left: dict[str, Any] = {
        "attention": dict(AttentionInterface._global_mapping),
        "masks": dict(AttentionMaskInterface._global_mapping),
        "gradients": torch.is_grad_enabled(),
    }
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            is_table = isinstance(value, dict) and "hooks" in key
            left[f"{name}.{key}"] = dict(value) if is_table else value if isinstance(value, bool) else id(value)
        if hasattr(part, "config"):
            left[f"{name} implementation"] = part.config._attn_implementation
    return left


@contextmanager
def leaving_nothing(module: nn.Module) -> Iterator[None]:
    before = trace(module)
    yield
    after = trace(module)
    assert {key: value for key, value in after.items() if before.get(key, value) != value} == {}
    assert set(after) == set(before)


def n_hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


def build(name: str) -> nn.Module:
    """A model that has run: transformers sets hooks of its own at the first forward."""
    built = FAMILIES[name].build()
    with torch.no_grad():
        built(**FAMILIES[name].inputs()[0])
    return built


@pytest.mark.parametrize("name", ["LLaVA", "Qwen2-VL", "Gemma 2"])
def test_nothing_is_left_behind(name: str) -> None:
    family, built = FAMILIES[name], build(name)
    anatomy = examine(built)
    score_batch(built, *family.inputs(), MaskSettings.paper())  # its self-check runs the untouched model too
    functions = dict(AttentionInterface._global_mapping)
    hooked = (*anatomy.blocks, anatomy.decoder, anatomy.head_owner)
    seen: list[list[int]] = []

    def look(*_: Any) -> None:
        seen.append([n_hooks(part) for part in hooked])
        assert AttentionInterface._global_mapping != functions

    handle = anatomy.blocks[0].register_forward_pre_hook(look)
    with leaving_nothing(built):
        score_batch(built, *family.inputs(), MaskSettings.paper())
    handle.remove()
    # What was looked at are the modules that were hooked: each had more hooks meanwhile.
    assert all(during > n_hooks(part) for during, part in zip(seen[0], hooked, strict=True))


class Planned(BaseException):
    """Neither an Exception nor one of torch's."""


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, Planned])
@pytest.mark.parametrize(
    ("place", "n_calls"),
    [
        (lambda anatomy: anatomy.blocks[1], 1),
        (lambda anatomy: anatomy.blocks[-1].self_attn.q_proj, 1),
        (lambda anatomy: anatomy.blocks[-1], 2),
        (lambda anatomy: anatomy.blocks[-1].self_attn.q_proj, 2),
        (lambda anatomy: anatomy.model.get_output_embeddings(), 1),
        (lambda anatomy: anatomy.model.get_output_embeddings(), 2),
        (lambda anatomy: anatomy.model.get_output_embeddings(), 3),
    ],
    ids=["block", "attention", "tail", "attention of the tail", "head", "head on answers", "head on masked answers"],
)
def test_nothing_is_left_behind_after_an_exception(
    place: Callable[[Any], nn.Module], n_calls: int, error: type[BaseException]
) -> None:
    built = build("LLaVA").train()
    batch = FAMILIES["LLaVA"].inputs()
    expected = score_batch(built, *batch, MaskSettings.paper())
    calls = 0

    def fail(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == n_calls:
            raise error("planned")

    handle = place(examine(built)).register_forward_pre_hook(fail)
    with leaving_nothing(built), pytest.raises(DataError if error is RuntimeError else error, match="planned"):
        score_batch(built, *batch, MaskSettings.paper())
    assert calls == n_calls
    handle.remove()
    assert torch.equal(columns(score_batch(built, *batch, MaskSettings.paper())), columns(expected))


def test_nothing_is_left_behind_when_the_self_check_fails() -> None:
    built = build("LLaVA")

    def fail(*_: Any) -> None:
        raise RuntimeError("planned")

    handle = examine(built).blocks[2].register_forward_hook(fail)
    with leaving_nothing(built), pytest.raises(DataError, match="planned"):
        score_batch(built, *FAMILIES["LLaVA"].inputs(), MaskSettings.paper())
    handle.remove()


# States that a model may be in.


def test_a_model_in_training_is_scored_as_in_evaluation_and_stays_as_it_was() -> None:
    family = FAMILIES["LLaVA"]
    expected = columns(score_batch(model("LLaVA"), *family.inputs(), MaskSettings.paper()))
    built = build("LLaVA")
    anatomy = examine(built)
    for config in (anatomy.decoder.config, built.config.vision_config):
        config.attention_dropout = 0.5
    for part in built.modules():
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.5
    anatomy.blocks[1].mlp.down_proj = nn.Sequential(anatomy.blocks[1].mlp.down_proj, nn.Dropout(0.5))
    built.train()
    anatomy.blocks[2].eval()  # a frozen part
    modes = [part.training for part in built.modules()]
    with leaving_nothing(built):
        assert torch.equal(columns(score_batch(built, *family.inputs(), MaskSettings.paper())), expected)
    assert [part.training for part in built.modules()] == modes
    assert len(set(modes)) == 2


def test_gradients_of_a_training_step_are_left_alone() -> None:
    family, built = FAMILIES["LLaVA"], FAMILIES["LLaVA"].build()
    inputs, labels = family.inputs()
    loss = built.train()(**inputs, labels=labels, use_cache=False).loss
    score_batch(built, inputs, labels, MaskSettings.paper())
    loss.backward()
    assert all(p.grad is not None for p in examine(built).blocks.parameters())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["LLaVA", "Llama"])
def test_eager_attention(name: str) -> None:
    family, built = FAMILIES[name], build(name)
    built.set_attn_implementation("eager")
    with leaving_nothing(built):
        score = score_batch(built, *family.inputs(), MaskSettings.paper())
    assert (
        columns(score) - columns(score_batch(model(name), *family.inputs(), MaskSettings.paper()))
    ).abs().max() < ROUNDING
    assert examine(built).decoder_config._attn_implementation == "eager"


def test_half_precision_gives_float32_scores_near_the_full_ones() -> None:
    family, built = FAMILIES["LLaVA"], FAMILIES["LLaVA"].build().bfloat16()
    inputs, labels = family.inputs()
    half = score_batch(
        built, inputs | {"pixel_values": inputs["pixel_values"].bfloat16()}, labels, MaskSettings.paper()
    )
    assert half.loss.dtype == half.saliency.dtype == torch.float32
    assert (half.loss - score_batch(model("LLaVA"), inputs, labels, MaskSettings.paper()).loss).abs().max() < 0.1


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft uses what transformers has renamed
@pytest.mark.skipif(not find_spec("peft"), reason="peft isn't installed")
@pytest.mark.parametrize("name", ["LLaVA", "Qwen2-VL"])
def test_adapters_of_peft_count(name: str) -> None:
    from peft import LoraConfig, get_peft_model

    family, built = FAMILIES[name], FAMILIES[name].build()
    inputs, labels = family.inputs()
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.5, init_lora_weights=False)
    adapted = get_peft_model(built, config).train()
    score = score_batch(adapted, inputs, labels, MaskSettings.paper())
    with leaving_nothing(adapted):
        assert torch.equal(columns(score_batch(adapted, inputs, labels, MaskSettings.paper())), columns(score))
    adapted.eval()
    layers = "base_model.model." + family.layers
    expected = naive_score(adapted, inputs, labels, MaskSettings.paper(), layers=layers, image_token=IMAGE)
    assert (score.loss - expected.loss).abs().max() < CONTRACT
    assert (score.delta - expected.delta).abs().max() < CONTRACT
    assert (score.loss - score_batch(model(name), inputs, labels, MaskSettings.paper()).loss).abs().max() > CONTRACT


@pytest.mark.skipif(not find_spec("accelerate"), reason="accelerate isn't installed")
@pytest.mark.parametrize("offload", ["cpu", "disk"])
def test_models_that_accelerate_has_spread(offload: str, tmp_path: Path) -> None:
    from accelerate import cpu_offload, dispatch_model

    family, built = FAMILIES["LLaVA"], FAMILIES["LLaVA"].build()
    expected = columns(score_batch(model("LLaVA"), *family.inputs(), MaskSettings.paper()))
    if offload == "cpu":
        spread = cpu_offload(built, execution_device=torch.device("cpu"))
    else:
        places = {name: "cpu" for name, _ in built.named_children()} | {"model.language_model.layers.2": "disk"}
        places |= {"model.vision_tower": "cpu", "model.multi_modal_projector": "cpu", "model.language_model": "cpu"}
        del places["model"]
        spread = dispatch_model(built, places, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True)
    forwards = {name: part.__dict__["forward"] for name, part in spread.named_modules() if "forward" in vars(part)}
    assert forwards  # accelerate has put its own in place
    assert torch.equal(columns(score_batch(spread, *family.inputs(), MaskSettings.paper())), expected)
    after = {name: part.__dict__["forward"] for name, part in spread.named_modules() if "forward" in vars(part)}
    assert after == forwards


def test_what_the_model_cannot_run_on_is_an_error_of_the_package():
    inputs, labels = FAMILIES["LLaVA"].inputs()
    for wrong in (inputs | {"input_ids": inputs["input_ids"] + 10**6}, {"nonsense": inputs["input_ids"]}):
        with pytest.raises(DataError):
            score_batch(model("LLaVA"), wrong, labels, MaskSettings.paper())
