r"""LLaVA's format: `conversations` of `from` and `value`, where the k-th `<image>` stands for the k-th image.

    {"id": "9", "image": "a/x.jpg", "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A bear."}]}

Also read: `image` or `images` as a string or a list (Qwen-VL, LLaMA-Factory's ShareGPT), text-only rows, `task_name`
(Vision-Flan). A row with an image but no `<image>` is refused: LLaVA's loader drops the image without a word,
Qwen-VL's and LLaMA-Factory's stop.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.reading.fields import find_images
from delta_attnmask.reading.turns import Conversation, MessageKeys, read_turns

_KEYS = MessageKeys("from", "value")


@dataclass(frozen=True)
class Llava:
    spec: str = "llava"

    def recognises(self, fields: Mapping[str, Any]) -> bool:
        return "conversations" in fields

    def parse(self, fields: Mapping[str, Any]) -> Conversation:
        if "conversations" not in fields:
            raise RowError(ReasonCode.NO_FIELD, "no `conversations`")
        images = find_images(fields)
        return Conversation(read_turns(fields["conversations"], "conversations", _KEYS), images)
