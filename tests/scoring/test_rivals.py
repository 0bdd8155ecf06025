"""Names of scores, and what a run has to compute for them."""

import pytest

from delta_attnmask import MaskSettings, score_batch
from delta_attnmask.derived import derived_names
from delta_attnmask.errors import SettingsError
from delta_attnmask.scores import SCORE_SCHEMA
from delta_attnmask.scoring.delta import sweep_batch
from delta_attnmask.scoring.rivals import load_rivals, rival_names, stored_names
from delta_attnmask.settings import Queries
from tests.families import FAMILIES
from tests.families.family import IMAGE


@pytest.mark.parametrize("queries", ["all", "answer"])
def test_the_image_share_is_of_all_queries_with_a_sweep_and_without(queries: Queries) -> None:
    batch, model = FAMILIES["LLaVA"].inputs(), FAMILIES["LLaVA"].build()
    rivals, settings = load_rivals(["image_share"]), MaskSettings(queries=queries, block=-2)
    sweep = [MaskSettings(queries=other, replacement="mean", block=-2) for other in ("answer", "all")]
    saliency = score_batch(model, *batch, MaskSettings.paper()).saliency
    expected = (saliency * (batch[0]["input_ids"] == IMAGE)).sum(-1) / saliency.sum(-1)
    for grid in ([settings], [settings, *sweep]):
        share = sweep_batch(model, *batch, grid, rivals=rivals).rivals["image_share"]
        assert (share - expected).abs().max() < 1e-6
    answers = score_batch(model, *batch, MaskSettings(queries="answer", block=-2)).saliency
    assert ((answers * (batch[0]["input_ids"] == IMAGE)).sum(-1) / answers.sum(-1) - expected).abs().min() > 1e-3


def test_what_is_stored_anyway_needs_nothing() -> None:
    assert load_rivals(["loss", "delta", "perplexity", "mid_perplexity", "long_answer", "relative_delta"]) == {}
    assert set(stored_names()) <= set(SCORE_SCHEMA.names)


def test_a_derived_score_stands_for_what_it_is_made_of() -> None:
    assert list(load_rivals(["image_gain"])) == ["loss_without_image"]
    assert list(load_rivals(["loss", "el2n", "ifd", "loss_alone", "irs"])) == [
        "el2n",
        "loss_alone",
        "loss_without_question",
    ]


def test_every_name_is_taken_and_no_two_kinds_of_names_meet() -> None:
    kinds = [stored_names(), derived_names(), rival_names()]
    assert len(set().union(*kinds)) == sum(map(len, kinds))
    assert list(load_rivals([name for names in kinds for name in names])) == [
        "loss_alone",
        "loss_without_image",
        "loss_without_question",
        *[name for name in rival_names() if not name.startswith("loss_")],
    ]


def test_unknown_names_are_told_together_with_all_there_are() -> None:
    with pytest.raises(SettingsError, match="no scores 'loos', 'vig'; there are ") as caught:
        load_rivals(["vig", "el2n", "loos"])
    assert all(name in str(caught.value) for name in [*rival_names(), *derived_names(), *stored_names()])
