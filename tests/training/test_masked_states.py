"""Masked states in a training forward: loss and gradient against a forward that is masked by hand."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from operator import attrgetter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from delta_attnmask import MaskSettings, SettingsError
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.training.masked_states import masked_states
from delta_attnmask.training.plan import AugmentationSettings
from tests import reference
from tests.families import FAMILIES
from tests.families.family import IMAGE, Family
from tests.hooks import hooks_of

ALL = MaskSettings.paper()
ANSWER = MaskSettings(queries="answer", tokens="prompt", fraction=0.4, block=1, replacement="mean")
IMAGES = MaskSettings(tokens="image", block=-2)
Gradients = dict[str, Tensor]


def always(mask: MaskSettings = ALL, **more: Any) -> AugmentationSettings:
    return AugmentationSettings(mask=mask, probability=1.0, **more)


def build(name: str) -> nn.Module:
    return FAMILIES[name].build().train()


def step(model: nn.Module, inputs: dict[str, Any], labels: Tensor, **columns: Tensor) -> tuple[float, Gradients]:
    """Loss and gradients of one forward and backward."""
    model.zero_grad()
    loss = model(**inputs, labels=labels, use_cache=False, **columns).loss
    loss.backward()
    return loss.item(), gradients(model)


def gradients(model: nn.Module) -> Gradients:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def by_hand(
    family: Family, model: nn.Module, inputs: Any, labels: Tensor, mask: MaskSettings
) -> tuple[float, Gradients]:
    """Two eager forwards with all maps: the first tells the mask, from the blocks up to the masked one."""
    blocks = attrgetter(family.layers)(model)
    is_token = inputs["attention_mask"].bool()
    with reference.attention(model, family.eager):
        with torch.no_grad(), reference.recorded_maps(blocks, labels.shape[1]) as maps:
            model(**inputs, use_cache=False)
        known = torch.stack(maps[: examine(model).resolve_block(mask.block) + 1]).float()
        saliency = reference.received(known, reference.counted_queries(is_token, labels, mask))
        eligible = reference.eligible(inputs["input_ids"], is_token, labels, mask, IMAGE)
        is_masked = reference.chosen(saliency, eligible, mask.fraction)
        with reference.replaced_states(blocks[mask.block], is_masked, is_token, mask.replacement):
            return step(model, inputs, labels)


def difference(one: Gradients, other: Gradients) -> float:
    """Length of the difference of the two gradients, relative to the second's."""
    assert one.keys() == other.keys()
    squares = [((one[name] - other[name]).square().sum(), other[name].square().sum()) for name in one]
    return float((sum(d for d, _ in squares) / sum(g for _, g in squares)) ** 0.5)


@pytest.mark.parametrize("mask", [ALL, ANSWER, IMAGES], ids=["all", "answer", "image"])
@pytest.mark.parametrize("name", ["LLaVA", "Qwen2-VL", "Idefics3"])
def test_equals_a_forward_masked_by_hand(name: str, mask: MaskSettings) -> None:
    family, model = FAMILIES[name], build(name)
    inputs, labels = family.inputs()
    expected = by_hand(family, model, inputs, labels, mask)
    with masked_states(model, always(mask)) as masking:
        loss, found = step(model, inputs, labels)
    plain, without = step(model, inputs, labels)
    assert loss == pytest.approx(expected[0], abs=1e-5)
    assert difference(found, expected[1]) < 1e-5
    assert abs(plain - loss) > 1e-4  # the mask shows in the loss
    assert difference(found, without) > 1e-2  # and in the gradient
    assert masking.n_masked == masking.n_samples == len(labels)


@contextmanager
def checkpointing(model: nn.Module, *, reentrant: bool) -> Iterator[None]:
    """As transformers does it today: inside the block, its hooks outside."""
    name = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # by version
    attrgetter(f"{name}_checkpointing_enable")(model)({"use_reentrant": reentrant})
    try:
        yield
    finally:
        attrgetter(f"{name}_checkpointing_disable")(model)()


@contextmanager
def checkpointing_around_hooks(model: nn.Module, *, reentrant: bool) -> Iterator[None]:
    """As older versions and other frameworks do it: the block's hooks run again in the backward pass."""
    kind = type(examine(model).blocks[0])
    plain = kind.__call__

    def call(self: nn.Module, states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return checkpoint(lambda given: plain(self, given, *args, **kwargs), states, use_reentrant=reentrant)

    kind.__call__ = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        kind.__call__ = plain  # type: ignore[method-assign]


@pytest.mark.parametrize("reentrant", [False, True], ids=["saved", "reentrant"])
@pytest.mark.parametrize("way", [checkpointing, checkpointing_around_hooks])
def test_checkpointing_changes_nothing(way: Callable[..., AbstractContextManager[None]], reentrant: bool) -> None:
    model = build("LLaVA")
    model.enable_input_require_grads()  # reentrant checkpoints need it
    batch = FAMILIES["LLaVA"].inputs()
    keys = torch.tensor([1, 2])
    with masked_states(model, always(ANSWER)):
        expected = step(model, *batch, masking_keys=keys)
        with way(model, reentrant=reentrant):
            found = step(model, *batch, masking_keys=keys)
    assert found[0] == expected[0]
    assert difference(found[1], expected[1]) < 1e-5


def test_two_forwards_before_their_backward_keep_their_masks() -> None:
    """As in losses over pairs: each forward's blocks run again with its own mask."""
    model = build("Llama")
    model.enable_input_require_grads()
    inputs, labels = FAMILIES["Llama"].inputs()
    swapped = {name: values.flip(0) for name, values in inputs.items()}

    def both(way: AbstractContextManager[None]) -> Gradients:
        model.zero_grad()
        with masked_states(model, always()), way:
            first = model(**inputs, labels=labels, use_cache=False).loss
            second = model(**swapped, labels=labels.flip(0), use_cache=False).loss
            (first + 2 * second).backward()
        return gradients(model)

    expected = both(nullcontext())
    for reentrant in (False, True):
        assert difference(both(checkpointing_around_hooks(model, reentrant=reentrant)), expected) < 1e-5


def test_evaluation_and_forwards_without_gradient_are_untouched() -> None:
    model = build("LLaVA")
    inputs, labels = FAMILIES["LLaVA"].inputs()
    keys = torch.tensor([1, 2])
    plain = model(**inputs).logits
    with masked_states(model, always()) as masking:
        with torch.no_grad():
            assert torch.equal(model(**inputs, masking_keys=keys).logits, plain)
        model.eval()
        assert torch.equal(model(**inputs, masking_keys=keys, masking_labels=labels).logits, plain)
        assert masking.n_samples == 0
        model.train()
        step(model, inputs, labels)
        generated = model.eval().generate(**inputs, max_new_tokens=2, do_sample=False)
    assert torch.equal(model.generate(**inputs, max_new_tokens=2, do_sample=False), generated)


class Broken(Exception):
    pass


def raise_broken(*_: Any) -> None:
    raise Broken


@pytest.mark.parametrize("where", ["before", "after", "outside"])
def test_nothing_is_left(where: str) -> None:
    model = build("LLaVA")
    inputs, labels = FAMILIES["LLaVA"].inputs()
    step(model, inputs, labels)  # transformers adds hooks of its own in the first forward
    before, table = hooks_of(model), dict(AttentionInterface())

    def fail() -> None:
        with masked_states(model, always()):
            assert len(hooks_of(model)) > len(before)  # this look does see them
            step(model, inputs, labels)
            if where == "outside":
                raise Broken
            handle = examine(model).blocks[0 if where == "before" else -1].register_forward_hook(raise_broken)
            try:
                step(model, inputs, labels)
            finally:
                handle.remove()
                assert dict(AttentionInterface()) == table  # at once, while the context is still open

    with pytest.raises(Broken):
        fail()
    assert hooks_of(model) == before
    assert dict(AttentionInterface()) == table
    assert not [name for name, module in model.named_modules() if "forward" in vars(module)]
    assert step(model, inputs, labels)[0] == step(build("LLaVA"), inputs, labels)[0]


def rows_masked(model: nn.Module, keys: list[int], settings: AugmentationSettings, epoch: int = 0) -> list[float]:
    """The loss of each key's sample, all of the same words."""
    inputs, labels = FAMILIES["Llama"].inputs(samples=(0,))
    losses = []
    with masked_states(model, settings) as masking:
        masking.epoch = epoch
        many = {name: values.expand(len(keys), -1) for name, values in inputs.items()}
        logits = model(**many, masking_keys=torch.tensor(keys), masking_labels=labels.expand(len(keys), -1)).logits
        losses = reference.mean_nll(logits, labels.expand(len(keys), -1)).tolist()
    return [round(loss, 4) for loss in losses]


@pytest.mark.parametrize(
    "settings",
    [
        AugmentationSettings(probability=0.5),
        always(MaskSettings(queries="all", order="random", fraction=0.5, block=-2)),
    ],
    ids=["drawn", "random tokens"],
)
def test_what_happens_to_a_sample_depends_on_seed_key_and_epoch_alone(settings: AugmentationSettings) -> None:
    model = build("Llama")
    keys = list(range(100, 116))
    together = rows_masked(model, keys, settings)
    alone = [loss for key in keys for loss in rows_masked(model, [key], settings)]
    assert together == alone
    assert rows_masked(model, keys[::-1], settings)[::-1] == together
    assert len(set(together)) > 1
    assert rows_masked(model, keys, settings, epoch=1) != together
    other = AugmentationSettings(**{**vars(settings), "seed": 1})
    assert rows_masked(model, keys, other) != together


def test_as_many_are_drawn_as_the_probability_says() -> None:
    model = build("Llama")
    inputs, _ = FAMILIES["Llama"].inputs(samples=(0,))
    many = {name: values[:, :4].expand(256, -1) for name, values in inputs.items()}
    for probability in (0.0, 0.4):
        with masked_states(model, AugmentationSettings(mask=ALL, probability=probability)) as masking:
            for _ in range(4):
                model(**many)
        assert masking.n_masked / masking.n_samples == pytest.approx(probability, abs=0.05)


def test_samples_that_may_not_be_masked_are_not() -> None:
    model = build("Llama")
    inputs, _ = FAMILIES["Llama"].inputs()
    plain = model(**inputs).logits
    with masked_states(model, always()):
        logits = model(**inputs, masking_allowed=torch.tensor([False, True])).logits
    assert torch.equal(logits[0], plain[0])
    assert not torch.equal(logits[1], plain[1])


def test_what_cannot_be_done_is_said() -> None:
    model = build("Llama")
    inputs, _ = FAMILIES["Llama"].inputs()
    with masked_states(model, always(ANSWER)), pytest.raises(SettingsError, match="labels"):
        model(**inputs)
    with masked_states(model, always(IMAGES)), pytest.raises(SettingsError, match="embeddings"):
        model(inputs_embeds=model.get_input_embeddings()(inputs["input_ids"]))
    with pytest.raises(SettingsError, match="block"), masked_states(model, always(MaskSettings(block=9))):
        pass
    model.set_attn_implementation("flex_attention")
    with pytest.raises(SettingsError, match="sdpa"), masked_states(model, always()):
        pass


def test_a_block_whose_mask_would_be_undone_is_refused() -> None:
    family, model = FAMILIES["Qwen3-VL"], build("Qwen3-VL")
    inputs, labels = family.inputs()
    with masked_states(model, always(MaskSettings(block=0))), pytest.raises(SettingsError, match="deepstack"):
        step(model, inputs, labels)


@pytest.mark.parametrize(
    "wrong",
    [{"probability": 1.5}, {"seed": -1}, {"probability": True}],
    ids=str,
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        AugmentationSettings(**wrong)
