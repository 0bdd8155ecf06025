"""Load a model and its processor by the conventions of Hugging Face: a folder (of a LoRA adapter too), or a hub name.

Also what is done with a loaded model as a whole: its fingerprint, and compiling it.
"""

import inspect
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.utils import logging as hf_logging

from delta_attnmask.calibration import ADAPTER_WEIGHTS
from delta_attnmask.errors import SettingsError, UnsupportedModelError
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.devices import (
    PLACEMENTS,
    choose_device,
    choose_dtype,
    is_out_of_memory,
    refuse_offloaded,
)
from delta_attnmask.modeling.kernels import triton_fault
from delta_attnmask.progress import print_note
from delta_attnmask.settings import Dtype

_ADAPTER = "adapter_config.json"
_ROWS_WORTH_COMPILING = 5000  # compiling takes about half a minute, and a 2B to 7B model gains 3 to 7 ms a row
_VALUES_PER_TENSOR = 64  # of a fingerprint
_NOT_PORTABLE = {"_name_or_path", "transformers_version"}
_SAFE: dict[str, Any] = {"trust_remote_code": False}  # left out, transformers asks on a terminal whether to run it


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

    A folder that holds a PEFT adapter is loaded with the base model that the adapter names, whose processor is used,
    and merged into it, so that it runs as fast. Only safetensors are read.
    dtype: "auto" is what `choose_dtype` says. device: "auto" takes the GPU if there is one;
    "balanced" and the other names of accelerate's device_map spread the model over several.
    revision: of the model, or of the adapter's base; if not given, the one that the adapter names.

    Raises UnsupportedModelError where it is missing, no image-text or causal language model, or too large for the
    device; SettingsError where there is no such device, or an adapter but no PEFT.
    """
    folder = Path(name)
    if (folder / _ADAPTER).exists() and not (folder / "config.json").exists():
        base, its_revision = _base_of(folder)
        return _merged(name, load_model(base, dtype=dtype, device=device, revision=revision or its_revision))
    if not folder.exists() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise UnsupportedModelError(
            f"{name}: there is no such folder; expected the folder of a model, or a name on the hub such as a/b"
        )
    if not folder.exists():
        print_note(f"model: there is no folder {name}; looking for a model of this name on the hub")
    chosen = choose_device(device)
    wanted = choose_dtype(dtype, chosen)
    placement = {"device_map": device} if device in PLACEMENTS else {}
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, **_SAFE)
        takes_images = type(config) in AutoModelForImageTextToText._model_mapping
        kind: Any = AutoModelForImageTextToText if takes_images else AutoModelForCausalLM
        with bars_on_terminals_only():
            options = _SAFE | placement | {"dtype": wanted, "revision": revision, "use_safetensors": True}
            model = kind.from_pretrained(name, **options)
        processor = _load_processor(name, revision)
        if placement:
            refuse_offloaded(name, model)
        else:
            model = model.to(chosen)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, MemoryError, SafetensorError) as error:
        where = "" if folder.exists() else "there is no such folder here, and on the hub it "
        raise UnsupportedModelError(f"{name}: {where}{_explain(error, device, wanted)}") from error
    return LoadedModel(name, model.eval(), processor, revision)


def _explain(error: Exception, device: str, dtype: torch.dtype) -> str:
    """What is wrong, in one line and without transformers' advice to run the code."""
    text = " ".join(str(error).split())
    if is_out_of_memory(error):
        smaller = ", --dtype bfloat16" if dtype == torch.float32 else ""
        return (
            f"out of memory while it was loaded (--device {device}, {dtype}); use a smaller model{smaller}, or more "
            "memory: another --device, or --device balanced over several GPUs"
        )
    if "trust_remote_code" in text:
        text = "it needs its own code, which is never run"
    return f"can't be loaded as an image-text or language model: {text}"


@contextmanager
def bars_on_terminals_only() -> Iterator[None]:
    """Keep transformers' progress bars out of logs."""
    is_log = not sys.stderr.isatty() and hf_logging.is_progress_bar_enabled()
    if is_log:
        hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if is_log:
            hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without the warnings that PEFT causes by using old names of transformers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)
        yield


def _base_of(folder: Path) -> tuple[str, str | None]:
    """The base model that an adapter names, and its revision; a relative folder may also be beside the adapter."""
    path = folder / _ADAPTER
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        base, revision = config.get("base_model_name_or_path"), config.get("revision")
    except (OSError, ValueError, AttributeError) as error:
        raise UnsupportedModelError(f"{path} can't be read: {error}") from error
    if not isinstance(base, str) or not base:
        raise UnsupportedModelError(f"{path} names no base model; write its folder into base_model_name_or_path")
    if not (folder / ADAPTER_WEIGHTS).exists():
        raise UnsupportedModelError(
            f"{folder}: this adapter has no {ADAPTER_WEIGHTS}; save it with safe_serialization=True"
        )
    beside = folder / base
    return str(beside) if not Path(base).exists() and beside.is_dir() else base, revision


def _merged(name: str, base: LoadedModel) -> LoadedModel:
    """The base with the adapter of the folder `name` merged into it; adapters that are made of it name that folder."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise SettingsError(f"{name} is an adapter, which needs PEFT: pip install 'delta-attnmask[train]'") from error
    model: Any = base.model
    try:
        with quiet_peft():
            merged = PeftModel.from_pretrained(model, name).merge_and_unload()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise UnsupportedModelError(f"{name}: the adapter doesn't fit {base.name}: {error}") from error
    merged.name_or_path = name
    return replace(base, name=name, model=merged.eval())


def _load_processor(name: str, revision: str | None) -> Any:
    """The processor, or for a text-only folder its tokenizer."""
    try:
        return AutoProcessor.from_pretrained(name, revision=revision, **_SAFE)  # type: ignore[no-untyped-call]
    except (OSError, ValueError):
        if Path(name).is_dir() and (Path(name) / "preprocessor_config.json").exists():
            raise
        return AutoTokenizer.from_pretrained(name, revision=revision, **_SAFE)


def model_fingerprint(model: nn.Module) -> str:
    """Hex SHA-256 over the configuration and 64 evenly spaced values of every parameter and buffer.

    Reads a few kilobytes however large the model is. Any training step changes nearly every parameter, so two
    checkpoints of one model differ; so does the same checkpoint in another precision.
    """
    config: Any = model.config
    # Without what says where the model is or which version wrote it.
    kept = {name: value for name, value in config.to_dict().items() if name not in _NOT_PORTABLE}
    digest = sha256(json.dumps(kept, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().reshape(-1)
        step = max(1, flat.numel() // _VALUES_PER_TENSOR)
        digest.update(flat[::step][:_VALUES_PER_TENSOR].cpu().double().numpy().tobytes())
    return digest.hexdigest()


def compile_blocks(model: nn.Module, backend: str = "inductor") -> Callable[[], None]:
    """Compile the forward of each decoder block but the last, and of each block of the vision tower.

    Modules keep their identity; hooks and replaced forwards keep working, since only `forward` changes.
    The last decoder block stays as it is: scoring runs a part of it on fewer rows.
    backend: of torch.compile. Costs some seconds at the first batch, and again where the number of dimensions changes.
    Returns what puts the blocks' own forwards back.
    """
    anatomy = examine(model)
    blocks = [*list(anatomy.blocks)[:-1], *vision_blocks(model, anatomy.decoder)]
    before = [vars(block).get("forward") for block in blocks]
    for block in blocks:
        block.forward = torch.compile(_own_forward(block), dynamic=True, backend=backend)

    def restore() -> None:
        for block, forward in zip(blocks, before, strict=True):
            if forward is None:
                del block.forward
            else:
                block.forward = forward

    return restore


def is_worth_compiling(loaded: LoadedModel, n_rows: int) -> bool:
    """Whether compiled blocks make up, over so many rows, for the time that compiling takes.

    False on other devices than NVIDIA GPUs, where Triton can't compile, and where the blocks are compiled already or
    fetch their weights (accelerate).
    """
    if loaded.device.type != "cuda" or n_rows < _ROWS_WORTH_COMPILING:
        return False
    is_patched = any("forward" in vars(block) for block in examine(loaded.model).blocks)
    return not is_patched and not triton_fault(loaded.device, torch.float32, 64)


def vision_blocks(model: nn.Module, decoder: nn.Module) -> Iterator[nn.Module]:
    """Blocks of one kind in a list outside the decoder; of nested lists the outer one."""
    taken = set(decoder.modules())
    for module in model.modules():
        is_stack = isinstance(module, nn.ModuleList) and len({type(part) for part in module}) == 1
        if is_stack and module not in taken:
            taken.update(module.modules())
            yield from module.children()


def _own_forward(block: nn.Module) -> Callable[..., Any]:
    """The forward without the wrappers that all classes of blocks share, since torch.compile keeps a few
    versions of each function, not of each class; one that is patched already (accelerate) as it is."""
    if "forward" in vars(block):
        return block.forward
    function = inspect.unwrap(type(block).forward)
    return function.__get__(block)  # type: ignore[no-any-return]
