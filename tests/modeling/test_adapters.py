"""LoRA adapters as models."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from delta_attnmask import UnsupportedModelError
from delta_attnmask.modeling.load import LoadedModel, load_model

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks for it

INPUTS = {"input_ids": torch.tensor([[5, 17, 40, 41]])}


@pytest.fixture(scope="module")
def adapter(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """The folder of an adapter that changes the model, and the logits of base and adapter together, not merged."""
    base: Any = load_model(str(embedded / "model"), device="cpu").model
    torch.manual_seed(0)
    adapted: Any = get_peft_model(
        base, LoraConfig(r=4, target_modules=r".*language_model.*\.(q|v)_proj", init_lora_weights=False)
    )
    folder = tmp_path_factory.mktemp("adapter")
    adapted.save_pretrained(folder)
    with torch.no_grad():
        return folder, adapted.eval()(**INPUTS).logits


def logits(loaded: LoadedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = loaded.model(**INPUTS).logits
    return found


def test_an_adapter_loads_its_base_and_is_merged(
    adapter: tuple[Path, torch.Tensor], embedded_model: LoadedModel
) -> None:
    folder, expected = adapter
    loaded = load_model(str(folder), device="cpu")
    assert loaded.name == str(folder)
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-4, atol=1e-4)
    assert (logits(loaded) - logits(embedded_model)).abs().max() > 0.1
    assert type(loaded.model) is type(embedded_model.model)
    assert not [name for name, _ in loaded.model.named_parameters() if "lora" in name]


def test_a_whole_model_is_loaded_as_it_is(embedded: Path, embedded_model: LoadedModel) -> None:
    loaded = load_model(str(embedded / "model"), device="cpu")
    assert torch.equal(logits(loaded), logits(embedded_model))


def changed(adapter: Path, folder: Path, **config: Any) -> Path:
    """A copy of the adapter's configuration with other values; no weights."""
    found = json.loads((adapter / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(found | config))
    return folder


def test_a_base_beside_the_adapter_is_found(adapter: tuple[Path, torch.Tensor], embedded: Path, tmp_path: Path) -> None:
    folder = changed(adapter[0], tmp_path, base_model_name_or_path="base")
    (folder / "base").symlink_to(embedded / "model")
    (folder / "adapter_model.safetensors").symlink_to(adapter[0] / "adapter_model.safetensors")
    torch.testing.assert_close(logits(load_model(str(folder), device="cpu")), adapter[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "reason"),
    [({"base_model_name_or_path": None}, "names no base model"), ({"base_model_name_or_path": "./gone"}, "no such")],
)
def test_adapters_without_a_base_are_refused(
    adapter: tuple[Path, torch.Tensor], tmp_path: Path, config: dict[str, Any], reason: str
) -> None:
    folder = changed(adapter[0], tmp_path, **config)
    (folder / "adapter_model.safetensors").symlink_to(adapter[0] / "adapter_model.safetensors")
    with pytest.raises(UnsupportedModelError, match=reason):
        load_model(str(folder), device="cpu")


def test_weights_in_a_pickle_are_refused(adapter: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    folder = changed(adapter[0], tmp_path)
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UnsupportedModelError, match=r"no adapter_model\.safetensors"):
        load_model(str(folder), device="cpu")


def test_an_adapter_of_another_model_is_refused(adapter: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    folder = changed(adapter[0], tmp_path, target_modules=["no_such_layer"])
    (folder / "adapter_model.safetensors").symlink_to(adapter[0] / "adapter_model.safetensors")
    with pytest.raises(UnsupportedModelError, match="doesn't fit"):
        load_model(str(folder), device="cpu")


def test_the_base_is_loaded_in_the_revision_that_the_adapter_names(
    adapter: tuple[Path, torch.Tensor], embedded: Path, tmp_path: Path
) -> None:
    folder = changed(adapter[0], tmp_path, revision="v1", base_model_name_or_path=str(embedded / "model"))
    (folder / "adapter_model.safetensors").symlink_to(adapter[0] / "adapter_model.safetensors")
    assert [load_model(str(folder), revision=revision).revision for revision in (None, "v2")] == ["v1", "v2"]


@pytest.mark.filterwarnings("ignore:Could not find a config file")  # of an adapter's folder, says PEFT
def test_what_is_trained_on_an_adapter_names_it_as_its_base(adapter: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    merged: Any = load_model(str(adapter[0]), device="cpu").model
    further: Any = get_peft_model(merged, LoraConfig(r=2, target_modules=r".*language_model.*\.q_proj"))
    further.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(load_model(str(tmp_path), device="cpu")), adapter[1], rtol=1e-4, atol=1e-4)
