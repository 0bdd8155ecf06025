"""MiniGPT-4's captions: an image and what it shows; the question is a setting, the same for every row.

    {"annotations": [{"image_id": "2", "caption": "A bear."}]}       the image is image/2.jpg

Also what a WebDataset holds that has a text beside each image: `{"images": […], "caption": "A bear."}`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.reading.fields import find_images, refuse_video
from delta_attnmask.reading.turns import Conversation, check_text, kind
from delta_attnmask.records import ImageRef, Turn

INSTRUCTION = "Describe this image in detail."


@dataclass(frozen=True)
class Captions:
    """instruction: what the user asks in every row; part of the `spec`, as it changes every score."""

    instruction: str = INSTRUCTION

    @property
    def spec(self) -> str:
        return f"minigpt4:{self.instruction}"

    def recognises(self, fields: Mapping[str, Any]) -> bool:
        return "caption" in fields and bool({"image_id", "image", "images"} & fields.keys())

    def parse(self, fields: Mapping[str, Any]) -> Conversation:
        if "caption" not in fields:
            raise RowError(ReasonCode.NO_FIELD, "no `caption`")
        refuse_video(fields)
        images = _find_image(fields["image_id"]) if "image_id" in fields else find_images(fields)
        caption = check_text(fields["caption"], "`caption`", "`caption`")
        question = Turn("user", (*(None,) * len(images), self.instruction))
        return Conversation((question, Turn("assistant", (caption,) if caption else ())), images)


def _find_image(label: object) -> tuple[ImageRef]:
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        raise RowError(ReasonCode.BAD_IMAGE_REFERENCE, f"`image_id` must be a string or a number, got {kind(label)}")
    check_text(str(label), "`image_id`", "`image_id`")
    return (ImageRef(f"image/{label}.jpg"),)
