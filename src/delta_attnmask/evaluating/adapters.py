"""LoRA adapters as models: the folder that PEFT writes loads its base model, and the adapter is merged into it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from delta_attnmask.errors import SettingsError, UnsupportedModelError
from delta_attnmask.modeling.load import Dtype, LoadedModel, load_model

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"


def load_trained(name: str, *, dtype: Dtype = "auto", device: str = "auto", revision: str | None = None) -> LoadedModel:
    """Load a model, or an adapter's folder with the base model that it names; merged, it runs as fast as its base.

    Only safetensors are read: an adapter saved as a pickle is refused. The base's processor is used.
    revision: of the model, or of the adapter's base; if not given, the one that the adapter names.
    Raises UnsupportedModelError where the adapter or its base can't be loaded, SettingsError without PEFT.
    """
    folder = Path(name)
    if not (folder / _CONFIG).exists() or (folder / "config.json").exists():
        return load_model(name, dtype=dtype, device=device, revision=revision)
    base_name, its_revision = _base_of(folder)
    base = load_model(base_name, dtype=dtype, device=device, revision=revision or its_revision)
    if not (folder / _WEIGHTS).exists():
        raise UnsupportedModelError(f"{name}: this adapter has no {_WEIGHTS}; save it with safe_serialization=True")
    try:
        from peft import PeftModel
    except ImportError as error:
        raise SettingsError(f"{name} is an adapter, which needs PEFT: pip install 'delta-attnmask[train]'") from error
    try:
        adapted: Any = PeftModel.from_pretrained(base.model, name)
        merged = adapted.merge_and_unload()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise UnsupportedModelError(f"{name}: the adapter doesn't fit {base.name}: {error}") from error
    return replace(base, name=name, model=merged.eval())


def _base_of(folder: Path) -> tuple[str, str | None]:
    """The base model that an adapter names, and its revision; a relative folder may also lie beside the adapter."""
    path = folder / _CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        base, revision = config.get("base_model_name_or_path"), config.get("revision")
    except (OSError, ValueError, AttributeError) as error:
        raise UnsupportedModelError(f"{path} can't be read: {error}") from error
    if not isinstance(base, str) or not base:
        raise UnsupportedModelError(f"{path} names no base model; write its folder into base_model_name_or_path")
    beside = folder / base
    return str(beside) if not Path(base).exists() and beside.is_dir() else base, revision
