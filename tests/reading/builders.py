"""Small LLaVA files, with images."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image


def make_row(n: int, image: str | None = None, **fields: Any) -> dict[str, Any]:
    """A good row; `image` puts one before the question."""
    tag = "<image>\n" if image else ""
    turns = [{"from": "human", "value": f"{tag}Which number?"}, {"from": "gpt", "value": f"Número {n}."}]
    return {"id": n, **({"image": image} if image else {}), **fields, "conversations": turns}


def write_list(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_images(root: Path, names: Sequence[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(root / name)
    return root
