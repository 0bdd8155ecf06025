"""What a record looks like in the formats of trainers. Each target is a function here and a line below. No torch here.

Nothing is trusted to be lossless: a row is read back as the target's readers would, and one that comes back otherwise
is refused with a reason. So a text that holds a tag, such as a literal `<image>`, never becomes an image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.reading.containers import RawRow
from delta_attnmask.reading.formats import FORMATS, Format, read_record
from delta_attnmask.reading.turns import TAG, set_apart
from delta_attnmask.records import ImageRef, Record, Turn

TargetName = Literal["llava", "messages", "llama-factory", "ms-swift", "trl", "parquet", "webdataset"]
Layout = Literal["list", "lines", "parquet", "tar"]
Written = Sequence[str | ImageRef]  # images by the paths to write, or those that stand in the file itself
Write = Callable[[Record, Written], dict[str, Any]]

_LLAVA_NAMES = {"system": "system", "user": "human", "assistant": "gpt"}


@dataclass(frozen=True)
class Target:
    """A format to write.

    write: a record and its image references to the row's fields. format: reads them back. layout: what file holds
    them. reserved: texts that the trainer takes for something else wherever they stand.
    """

    name: str
    write: Write
    format: Format
    layout: Layout
    reserved: tuple[str, ...] = ()

    @property
    def holds_images(self) -> bool:
        """Whether images stand in the file itself, instead of being named by it."""
        return self.layout in {"parquet", "tar"}

    def convert(self, record: Record, images: Written) -> dict[str, Any]:
        """The row's fields; RowError where the target can't say what the record says."""
        for n, turn in enumerate(record.turns, start=1):
            if found := next((text for text in self.reserved if text in turn.text), None):
                raise RowError(
                    ReasonCode.NOT_EXPRESSIBLE, f"turn {n}: the text {found!r} means something else to {self.name}"
                )
        fields = self.write(record, images)
        refs = tuple(ImageRef(image) if isinstance(image, str) else image for image in images)
        back = read_record(self.format, RawRow(record.row, 0, b"", fields))
        if back.reason or back.images != refs or _settle(back) != _settle(record):
            raise RowError(
                ReasonCode.NOT_EXPRESSIBLE,
                f"{self.name} can't say it: {back.reason or 'its reader would see another conversation'}",
            )
        return fields


def _settle(record: Record) -> list[tuple[str, tuple[str | None, ...]]]:
    """Turns as they count: neighbouring texts joined, and no white space between text and the images around it."""
    return [(turn.role, set_apart(_join_texts(turn.parts))) for turn in record.turns]


def _join_texts(parts: Sequence[str | None]) -> list[str | None]:
    joined: list[str | None] = []
    for part in parts:
        last = joined[-1] if joined else None
        if part is None or last is None:
            joined.append(part)
        else:
            joined[-1] = last + part
    return joined


def write_text(turn: Turn, separator: str = "") -> str:
    """A turn's text with its tags; `separator` stands between an image at either end and the text."""
    pieces = [TAG if part is None else part for part in turn.parts]
    texts = [idx for idx, part in enumerate(turn.parts) if part is not None]
    for idx, part in enumerate(turn.parts):
        if part is None and texts and idx < texts[0]:
            pieces[idx] = TAG + separator
        elif part is None and texts and idx > texts[-1]:
            pieces[idx] = separator + TAG
    return "".join(pieces)


def write_typed(turn: Turn) -> dict[str, Any]:
    """A message whose content is a list of typed parts."""
    parts = turn.parts or ("",)
    content = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
    return {"role": turn.role, "content": content}


def write_llava(record: Record, images: Written) -> dict[str, Any]:
    image = {"image": images[0] if len(images) == 1 else list(images)} if images else {}
    turns = [{"from": _LLAVA_NAMES[turn.role], "value": write_text(turn, "\n")} for turn in record.turns]
    return _label(record) | image | {"conversations": turns}


def write_messages(record: Record, images: Written) -> dict[str, Any]:
    return _label(record) | {"images": list(images), "messages": [write_typed(turn) for turn in record.turns]}


def write_tagged(record: Record, images: Written) -> dict[str, Any]:
    """LLaMA-Factory's and ms-swift's messages: the tag stands where the image does, and nothing is put beside it."""
    turns = [{"role": turn.role, "content": write_text(turn)} for turn in record.turns]
    return _label(record) | {"messages": turns, "images": list(images)}


def write_completion(record: Record, images: Written) -> dict[str, Any]:
    """TRL's prompt and completion: what it computes the loss over is the last turn alone."""
    *prompt, completion = (write_typed(turn) for turn in record.turns)
    return _label(record) | {"images": list(images), "prompt": prompt, "completion": [completion]}


def _label(record: Record) -> dict[str, str]:
    return {"id": record.id, "source": record.source}


_MESSAGES = FORMATS["messages"]
_MEDIA = ("<video>", "<audio>")
_SWIFT = (*_MEDIA, "<bbox>", "<ref-object>", "<cot-process>", "<start-image>", "<img>")

TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target("llava", write_llava, FORMATS["llava"], "list"),
        Target("messages", write_messages, _MESSAGES, "lines"),
        Target("llama-factory", write_tagged, _MESSAGES, "list", (TAG, *_MEDIA)),
        Target("ms-swift", write_tagged, _MESSAGES, "lines", (TAG, *_SWIFT)),
        Target("trl", write_messages, _MESSAGES, "parquet"),
        Target("parquet", write_messages, _MESSAGES, "parquet"),
        Target("webdataset", write_messages, _MESSAGES, "tar"),
    )
}
TRL_SINGLE = Target("trl", write_completion, FORMATS["prompt-completion"], "parquet")


def choose_target(name: str, is_single: bool) -> Target:
    """The target of that name. is_single: every row has one answer, so TRL can be given prompts and completions."""
    return TRL_SINGLE if name == "trl" and is_single else TARGETS[name]
