"""Each block's shares of attention, against the maps that the models give themselves."""

import pytest
import torch
from torch import nn

from delta_attnmask.batches import TokenRoles
from delta_attnmask.modeling.anatomy import Anatomy, examine
from delta_attnmask.modeling.shares import MEASURES, read_shares
from tests.families import FAMILIES
from tests.families.family import EOS, IMAGE, Family
from tests.reference import attention

NAMES = ["LLaVA", "Qwen2-VL", "SmolVLM", "Gemma 3", "Mistral 3"]


def roles_of(family: Family) -> tuple[dict[str, torch.Tensor], TokenRoles]:
    inputs, labels = family.inputs("right")
    inputs["input_ids"][0, 3] = EOS
    return inputs, TokenRoles.of(inputs, labels, IMAGE, [EOS])


def expected(maps: torch.Tensor, roles: TokenRoles, sample: int) -> list[float]:
    """One sample, one block, position by position; maps `[head, query, key]`."""
    found = {name: [] for name in MEASURES}
    for query in roles.is_token[sample].nonzero().flatten().tolist():
        on = {"image": 0.0, "question": 0.0, "sink": 0.0}
        entropy = 0.0
        for head in maps[:, query]:
            entropy -= sum(float(p) * float(p.log()) for p in head if p > 0) / len(maps)
            for key, part in enumerate(head.tolist()):
                if key == 0 or bool(roles.is_special[sample, key]):
                    on["sink"] += part / len(maps)
                elif bool(roles.is_image[sample, key]):
                    on["image"] += part / len(maps)
                elif not bool(roles.is_answer[sample, key]):
                    on["question"] += part / len(maps)
        found["entropy"].append(entropy)
        for name, part in on.items():
            found[name].append(part)
        if bool(roles.predicts_answer[sample, query]):
            found["answer_to_image"].append(on["image"])
    return [sum(found[name]) / len(found[name]) for name in MEASURES]


@pytest.mark.parametrize("name", NAMES)
def test_shares_are_those_of_the_models_own_maps(name: str) -> None:
    family = FAMILIES[name]
    model = family.build()
    inputs, roles = roles_of(family)
    got = read_shares(examine(model), inputs, roles)
    with attention(model, "eager"), torch.no_grad():
        maps = model(**inputs, use_cache=False, output_attentions=True).attentions
    assert len(got) == len(maps) == 4
    for block in (0, 3):
        for sample in (0, 1):
            assert got[block, sample].tolist() == pytest.approx(expected(maps[block][sample], roles, sample), abs=1e-5)


def hooked(anatomy: Anatomy) -> list[nn.Module]:
    """Of the modules that are hooked meanwhile those that still are; transformers leaves hooks of its own elsewhere."""
    modules = [*anatomy.blocks.modules(), anatomy.model.get_output_embeddings()]
    return [module for module in modules if module._forward_hooks or module._forward_pre_hooks]


def test_leaves_the_model_as_it_was() -> None:
    family = FAMILIES["LLaVA"]
    model = family.build().train()
    inputs, roles = roles_of(family)
    anatomy = examine(model)
    before = anatomy.decoder_config._attn_implementation
    read_shares(anatomy, inputs, roles)
    with pytest.raises(ValueError, match="input_ids"):
        read_shares(anatomy, {"nothing": None}, roles)
    assert hooked(anatomy) == []
    assert anatomy.decoder_config._attn_implementation == before == "sdpa"
    assert all(module.training for module in model.modules())
