"""How tables say what their columns are, for `datasets` to decode images and for schemas to agree. No torch here."""

import json
from typing import Any

import pyarrow as pa

HF_KEY = b"huggingface"
IMAGES = pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()}))
MESSAGES = pa.list_(
    pa.struct({"role": pa.string(), "content": pa.list_(pa.struct({"type": pa.string(), "text": pa.string()}))})
)


def describe_schema(schema: pa.Schema, known: dict[str, Any] | None = None) -> pa.Schema:
    """The schema with the metadata that `datasets` reads; known: features of columns that it knew before."""
    features = {field.name: (known or {}).get(field.name) or _describe(field.type) for field in schema}
    info = json.dumps({"info": {"features": features}}).encode()
    return schema.with_metadata((schema.metadata or {}) | {HF_KEY: info})


def read_features(schema: pa.Schema) -> dict[str, Any]:
    """What the metadata say of the columns; nothing where they say nothing that can be read."""
    try:
        found = json.loads((schema.metadata or {}).get(HF_KEY, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _describe(type: pa.DataType) -> Any:
    """A column's feature; a list is written as a list, which every version of `datasets` reads."""
    if type == IMAGES:
        return [{"_type": "Image"}]
    if pa.types.is_list(type) or pa.types.is_large_list(type):
        return [_describe(type.value_type)]
    if pa.types.is_struct(type):
        return {field.name: _describe(field.type) for field in type}
    return {"dtype": _NAMES.get(str(type), str(type)), "_type": "Value"}


_NAMES = {"double": "float64", "float": "float32", "halffloat": "float16"}
