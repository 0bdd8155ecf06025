"""A processor whose calls are counted, and changed if wanted."""

from collections.abc import Callable
from typing import Any

Change = Callable[[dict[str, Any], int], dict[str, Any]]  # what it made of so many prompts, changed


class Wrapped:
    """n_prompts: how many each call was given. n_images: how many images in all."""

    def __init__(self, processor: Any, change: Change | None = None) -> None:
        self._processor, self._change = processor, change
        self.n_prompts: list[int] = []
        self.n_images: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, text: Any, **arguments: Any) -> Any:
        if not isinstance(text, list):  # a tokenizer that is asked for offsets
            return self._processor(text, **arguments)
        self.n_prompts.append(len(text))
        self.n_images.append(sum(map(len, arguments.get("images", []))))
        found = self._processor(text=text, **arguments)
        return self._change(dict(found), len(text)) if self._change else found
