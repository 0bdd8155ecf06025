"""What all tests share: one thread, no network, and the embedded model and data exported once."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models are fastest on one thread; set before torch is imported

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one is no fault
hypothesis.settings.load_profile("any machine")

if TYPE_CHECKING:
    from delta_attnmask.modeling.load import LoadedModel


@pytest.fixture(autouse=True)
def network_attempts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every look-up and connection but to this machine fails, and fails the test unless it clears this list."""
    attempts: list[str] = []

    def guarded(function: Any, host_of: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            host = host_of(*args)
            if isinstance(host, str) and host not in {"", "localhost", "127.0.0.1", "::1", socket.gethostname()}:
                attempts.append(host)
                raise OSError("tests have no network")
            return function(*args, **kwargs)

        return call

    def host_of_address(_: socket.socket, address: Any) -> Any:
        return address[0] if isinstance(address, tuple) else None  # the others are local sockets

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(getattr(socket.socket, name), host_of_address))
    monkeypatch.setattr(socket, "getaddrinfo", guarded(socket.getaddrinfo, lambda host, *_: host))
    yield attempts
    assert attempts == []


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model/, images/ and pool.json."""
    from delta_attnmask.embedded import export

    return export(tmp_path_factory.mktemp("embedded"))


@pytest.fixture(scope="session")
def embedded_model(embedded: Path) -> "LoadedModel":
    from delta_attnmask.modeling.load import load_model

    return load_model(str(embedded / "model"), dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def tiny_model(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's processor with a much smaller model, of random weights."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    shutil.copytree(embedded / "model", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    import torch
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig.from_pretrained(folder)
    for part in (config.text_config, config.vision_config):
        part.update({"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2})
    config.text_config.update({"num_key_value_heads": 2, "head_dim": 16})
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder
