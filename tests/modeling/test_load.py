"""Folders of models that nobody has vetted: their weights and settings are read, their code never runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from delta_attnmask.errors import UnsupportedModelError
from delta_attnmask.modeling.load import load_model

CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast
class Config(LlavaConfig):
    model_type = "mine"
class Model(LlavaForConditionalGeneration):
    config_class = Config
class Processor(LlavaProcessor): pass
class Tokenizer(PreTrainedTokenizerFast): pass
"""
CODE_OF = {
    "config.json": {"AutoConfig": "mine.Config", "AutoModelForImageTextToText": "mine.Model"},
    "tokenizer_config.json": {"AutoTokenizer": ["mine.Tokenizer", "mine.Tokenizer"]},
    "processor_config.json": {"AutoProcessor": "mine.Processor"},
}


class Touch:
    """Unpickled, it leaves a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture
def folder(embedded, tmp_path):
    """A copy of the embedded model."""
    return Path(shutil.copytree(embedded / "model", tmp_path / "model"))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "was-here"


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | values))


def test_a_name_that_is_no_folder_is_said_before_the_hub_is_asked(capsys, network_attempts, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it tries for half a minute
    with pytest.raises(UnsupportedModelError, match="there is no such folder here, and on the hub it can't be loaded"):
        load_model("models/typo")
    said = "model: there is no folder models/typo; looking for a model of this name on the hub\n"
    assert capsys.readouterr().err.startswith(said)
    assert network_attempts == []


def load(folder: Path) -> Any:
    return load_model(str(folder), dtype="float32", device="cpu")


@pytest.mark.parametrize("name", CODE_OF)
def test_code_beside_a_known_model_is_left_aside(folder, marker, name):
    (folder / "mine.py").write_text(CODE.format(marker=str(marker)))
    change(folder / name, auto_map=CODE_OF[name])
    loaded = load(folder)
    assert type(loaded.model).__module__.startswith("transformers.")
    assert type(loaded.processor).__module__.startswith("transformers.")
    assert not marker.exists()


def test_a_model_that_needs_its_own_code_is_refused(folder, marker):
    (folder / "mine.py").write_text(CODE.format(marker=str(marker)))
    change(folder / "config.json", auto_map=CODE_OF["config.json"], model_type="mine")
    with pytest.raises(UnsupportedModelError, match="needs its own code, which is never run"):
        load(folder)
    assert not marker.exists()


def test_a_kind_of_model_that_nobody_knows_is_refused(folder):
    change(folder / "config.json", model_type="llava-9000")
    with pytest.raises(UnsupportedModelError, match=r"can't be loaded .*llava-9000"):
        load(folder)


@pytest.mark.parametrize("indexed", [False, True])
def test_pickled_weights_are_not_loaded(folder, marker, indexed):
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    torch.save({"weight": Touch(marker)}, folder / "pytorch_model.bin")
    if indexed:
        (folder / "pytorch_model.bin.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": {"weight": "pytorch_model.bin"}})
        )
    with pytest.raises(UnsupportedModelError, match="safetensors"):
        load(folder)
    assert not marker.exists()


def test_the_pickle_would_have_left_its_mark(marker, tmp_path):
    """Else the test above could not fail."""
    torch.save(Touch(marker), tmp_path / "x.bin")
    torch.load(tmp_path / "x.bin", weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
    ],
)
def test_out_of_memory_is_one_clear_line(folder, monkeypatch, error):
    def run_out(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(torch.nn.Module, "to", run_out)
    with pytest.raises(
        UnsupportedModelError, match=r"out of memory while it was loaded .*use .*--dtype bfloat16"
    ) as got:
        load(folder)
    assert "\n" not in str(got.value)
    assert str(folder) in str(got.value)


def test_weights_that_are_cut_off_are_one_clear_line(folder):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(UnsupportedModelError, match="can't be loaded as") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_are_one_clear_line(folder):
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"]["intermediate_size"] *= 2
    change(folder / "config.json", **settings)
    with pytest.raises(UnsupportedModelError, match="can't be loaded as") as caught:
        load(folder)
    assert "\n" not in str(caught.value)
