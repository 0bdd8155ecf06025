"""Load a model and its processor by the conventions of Hugging Face: a folder, or a name on the hub."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.utils import logging as hf_logging

from delta_attnmask.errors import UnsupportedModelError
from delta_attnmask.modeling.devices import PLACEMENTS, choose_device, is_recent_gpu

_SAFE: dict[str, Any] = {"trust_remote_code": False}  # left out, transformers asks on a terminal whether to run it

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode with what encodes its inputs. revision: of a model on the hub."""

    name: str
    model: nn.Module
    processor: Any
    revision: str | None = None

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype


def load_model(name: str, *, dtype: Dtype = "auto", device: str = "auto", revision: str | None = None) -> LoadedModel:
    """Load `name` (a folder or a hub name) without running code of its repository.

    A folder that holds a PEFT adapter is loaded together with the base model, in the revision, that the adapter names.
    dtype: "auto" is what `choose_dtype` says. device: "auto" takes the GPU if there is one;
    "balanced" and the other names of accelerate's device_map spread the model over several.

    Raises UnsupportedModelError where it is missing, no image-text or causal language model, or too large for the
    device; SettingsError where there is no such device.
    """
    if not Path(name).exists() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise UnsupportedModelError(
            f"{name}: there is no such folder; expected the folder of a model, or a name on the hub such as a/b"
        )
    chosen = choose_device(device)
    wanted = choose_dtype(dtype, chosen)
    placement = {"device_map": device} if device in PLACEMENTS else {}
    try:
        adapter = _adapter_of(name)
        revision = revision or adapter.get("revision")
        base = str(adapter["base_model_name_or_path"]) if adapter else name
        config = AutoConfig.from_pretrained(base, revision=revision, **_SAFE)
        kind: Any = AutoModelForImageTextToText if _takes_images(config) else AutoModelForCausalLM
        with bars_on_terminals_only():
            options = _SAFE | placement | {"dtype": wanted, "revision": revision, "use_safetensors": True}
            model = kind.from_pretrained(name, **options)
        processor = _load_processor(name, revision)
        if placement:
            refuse_offloaded(name, model)
        else:
            model = model.to(chosen)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, MemoryError, SafetensorError) as error:
        raise UnsupportedModelError(f"{name}: {_explain(error, device, wanted)}") from error
    return LoadedModel(name, model.eval(), processor, revision)


def _explain(error: Exception, device: str, dtype: torch.dtype) -> str:
    """What is wrong, in one line and without transformers' advice to run the code."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text:
        smaller = ", --dtype bfloat16" if dtype == torch.float32 else ""
        return (
            f"out of memory while it was loaded (--device {device}, {dtype}); use a smaller model{smaller}, or more "
            "memory: another --device, or --device balanced over several GPUs"
        )
    if "trust_remote_code" in text:
        text = "it needs code that comes with it, which is never run"
    return f"can't be loaded as an image-text or language model: {text}"


def refuse_offloaded(name: str, model: nn.Module) -> None:
    """Raise UnsupportedModelError where accelerate left parts outside the GPUs, to be fetched at every forward."""
    sizes = dict.fromkeys((False, True), 0)
    for parameter in model.parameters():
        sizes[parameter.is_meta] += parameter.numel()
    if sizes[True]:
        share = sizes[True] / sum(sizes.values())
        raise UnsupportedModelError(
            f"{name}: {share:.0%} of its parameters don't fit the GPUs; use more of them (with --engine ray, "
            "--gpus-per-actor), or --dtype bfloat16"
        )


@contextmanager
def bars_on_terminals_only() -> Iterator[None]:
    """Keep transformers' progress bars out of logs."""
    if sys.stderr.isatty() or not hf_logging.is_progress_bar_enabled():
        yield
        return
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def choose_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """The precision of that name; "auto" is bfloat16 on an NVIDIA GPU, float16 on one too old for it, else float32."""
    if dtype == "auto" and device.type == "cuda":
        return torch.bfloat16 if is_recent_gpu(device) else torch.float16
    if dtype == "auto":
        return torch.float32
    chosen: torch.dtype = getattr(torch, dtype)
    return chosen


def _adapter_of(name: str) -> dict[str, Any]:
    """The configuration of the adapter that a folder holds; empty for a whole model."""
    path = Path(name) / "adapter_config.json"
    if not path.exists() or (Path(name) / "config.json").exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _takes_images(config: Any) -> bool:
    return type(config) in AutoModelForImageTextToText._model_mapping


def _load_processor(name: str, revision: str | None) -> Any:
    """The processor, or for a text-only folder its tokenizer."""
    try:
        return AutoProcessor.from_pretrained(name, revision=revision, **_SAFE)  # type: ignore[no-untyped-call]
    except (OSError, ValueError):
        if Path(name).is_dir() and (Path(name) / "preprocessor_config.json").exists():
            raise
        return AutoTokenizer.from_pretrained(name, revision=revision, **_SAFE)
