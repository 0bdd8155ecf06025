"""A small data set in every format, shaped as those that people have: each says the same two conversations.

The first has one picture and two exchanges where the format has room for them, the second is text alone.
"""

import base64
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from delta_attnmask.records import Turn
from tests.reading.builders import write_lines, write_list

IMAGE_ROW = (
    Turn("user", (None, "What is it?")),
    Turn("assistant", ("A bear.",)),
    Turn("user", ("Which colour?",)),
    Turn("assistant", ("Brown, I think: «brun» 棕.",)),
)
TEXT_ROW = (Turn("user", ("Say hello.",)), Turn("assistant", ("Hello!",)))
RED = (255, 0, 0)


def encode_image(colour: str = "red", kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(file, kind)
    return file.getvalue()


def write_image(path: Path, colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(colour))


def from_value(turns: Sequence[Turn], tag: str = "<image>\n") -> list[dict[str, str]]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[turn.role], "value": tag * turn.parts.count(None) + turn.text} for turn in turns]


def role_content(turns: Sequence[Turn], tag: str = "<image>") -> list[dict[str, str]]:
    return [{"role": turn.role, "content": tag * turn.parts.count(None) + turn.text} for turn in turns]


def typed(turns: Sequence[Turn], image: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    def show(part: str | None) -> dict[str, Any]:
        return (image or {"type": "image"}) if part is None else {"type": "text", "text": part}

    return [{"role": turn.role, "content": [show(part) for part in turn.parts]} for turn in turns]


def llava(folder: Path) -> Path:
    rows = [
        {"id": "000000033471", "image": "coco/x.png", "conversations": from_value(IMAGE_ROW)},
        {"id": "wgByO4Y_0", "model": "", "conversations": from_value(TEXT_ROW)},
    ]
    return write_list(folder / "llava_v1_5_mix665k.json", rows)


def vision_flan(folder: Path) -> Path:
    row = {"id": "Total-Text+13", "image": "coco/x.png", "task_name": "Total-Text+text_detection"}
    rows = [row | {"conversations": from_value(IMAGE_ROW)}, {"id": "t", "conversations": from_value(TEXT_ROW)}]
    return write_list(folder / "vision-flan.json", rows)


def qwen_vl(folder: Path) -> Path:
    rows = [
        {"image": ["coco/x.png"], "conversations": from_value(IMAGE_ROW)},
        {"conversations": from_value(TEXT_ROW)},
    ]
    return write_lines(folder / "qwen.jsonl", rows)


def sharegpt(folder: Path) -> Path:
    rows = [
        {"conversations": from_value(IMAGE_ROW, "<image>"), "images": ["coco/x.png"]},
        {"conversations": from_value(TEXT_ROW), "images": []},
    ]
    return write_list(folder / "sharegpt.json", rows)


def llama_factory(folder: Path) -> Path:
    """With names that nothing could guess: `dataset_info.json` says them."""
    tags = {"role_tag": "who", "content_tag": "what", "user_tag": "U", "assistant_tag": "A"}
    columns = {"messages": "talk", "images": "pictures"}
    info = {"mine": {"file_name": "lf.json", "formatting": "sharegpt", "columns": columns, "tags": tags}}
    (folder / "dataset_info.json").write_text(json.dumps(info))

    def talk(turns: Sequence[Turn]) -> list[dict[str, str]]:
        return [{"who": one["role"][0].upper(), "what": one["content"]} for one in role_content(turns)]

    rows = [{"talk": talk(IMAGE_ROW), "pictures": ["coco/x.png"]}, {"talk": talk(TEXT_ROW), "pictures": []}]
    return write_list(folder / "lf.json", rows)


def messages(folder: Path) -> Path:
    rows = [
        {"messages": role_content(IMAGE_ROW), "images": ["coco/x.png"]},
        {"messages": role_content(TEXT_ROW), "images": []},
    ]
    return write_lines(folder / "messages.jsonl", rows)


def ms_swift(folder: Path) -> Path:
    """A data URI in place of a path, and the tag left out, which ms-swift then puts in front."""
    uri = f"data:image/png;base64,{base64.b64encode(encode_image()).decode()}"
    rows = [{"messages": role_content(IMAGE_ROW, ""), "images": [uri]}, {"messages": role_content(TEXT_ROW)}]
    return write_lines(folder / "swift.jsonl", rows)


def ms_swift_2(folder: Path) -> Path:
    first, second = IMAGE_ROW[:2], IMAGE_ROW[2:]
    row = {
        "history": [["<image>" + first[0].text, first[1].text]],
        "query": second[0].text,
        "response": second[1].text,
        "images": ["coco/x.png"],
    }
    return write_lines(folder / "swift2.jsonl", [row, {"query": "Say hello.", "response": "Hello!"}])


def openai(folder: Path) -> Path:
    uri = f"data:image/png;base64,{base64.b64encode(encode_image()).decode()}"
    part = {"type": "image_url", "image_url": {"url": uri, "detail": "low"}}
    return write_lines(
        folder / "openai.jsonl", [{"messages": typed(IMAGE_ROW, part)}, {"messages": role_content(TEXT_ROW)}]
    )


def trl(folder: Path) -> Path:
    rows = [
        {"images": ["coco/x.png"], "prompt": typed(IMAGE_ROW[:3]), "completion": typed(IMAGE_ROW[3:])},
        {"images": [], "prompt": typed(TEXT_ROW[:1]), "completion": typed(TEXT_ROW[1:])},
    ]
    return write_lines(folder / "trl.jsonl", rows)


def alpaca(folder: Path) -> Path:
    row = {
        "history": [["<image>What is it?", "A bear."]],
        "instruction": "Which colour?",
        "input": "",
        "output": IMAGE_ROW[3].text,
        "images": ["coco/x.png"],
    }
    return write_list(folder / "alpaca.json", [row, {"instruction": "Say hello.", "output": "Hello!"}])


PICTURES = pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()}))
TALK = pa.list_(pa.struct({"from": pa.string(), "value": pa.string()}))


def column_rows() -> pa.Table:
    """As LLaVA-OneVision's on the hub: `datasets` wrote its schema into the metadata."""
    features = {"id": {"dtype": "string", "_type": "Value"}, "images": {"feature": {"_type": "Image"}, "_type": "List"}}
    schema = pa.schema(
        {"id": pa.string(), "images": PICTURES, "conversations": TALK, "data_source": pa.string()},
        metadata={"huggingface": json.dumps({"info": {"features": features}}), "made by": "hand"},
    )
    rows = [
        {
            "id": "a",
            "images": [{"bytes": encode_image(), "path": None}],
            "conversations": from_value(IMAGE_ROW),
            "data_source": "coco",
        },
        {"id": "b", "images": [], "conversations": from_value(TEXT_ROW), "data_source": ""},
    ]
    return pa.Table.from_pylist(rows, schema)


def parquet(folder: Path) -> Path:
    """A snapshot of a repository on the hub."""
    (folder / "hub" / "data").mkdir(parents=True)
    (folder / "hub" / "README.md").write_text("---\nlicense: mit\n---\n")
    pq.write_table(column_rows(), folder / "hub" / "data" / "train-00000-of-00001.parquet", row_group_size=1)
    return folder / "hub"


def arrow(folder: Path) -> Path:
    """A folder that `save_to_disk` has written."""
    (folder / "disk").mkdir()
    name = "data-00000-of-00001.arrow"
    table = column_rows()
    with pa.OSFile(str(folder / "disk" / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    state = {"_data_files": [{"filename": name}], "_fingerprint": "0123456789abcdef", "_format_type": None}
    (folder / "disk" / "state.json").write_text(json.dumps(state))
    (folder / "disk" / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return folder / "disk"


def feather(folder: Path) -> Path:
    with pa.OSFile(str(folder / "x.feather"), "wb") as file, pa.ipc.new_file(file, column_rows().schema) as writer:
        writer.write_table(column_rows())
    return folder / "x.feather"


def cauldron(folder: Path) -> Path:
    """As The Cauldron's on the hub: texts of a user and an assistant, images first."""
    texts = pa.list_(pa.struct({"user": pa.string(), "assistant": pa.string(), "source": pa.string()}))
    pairs = [
        [{"user": a.text, "assistant": b.text, "source": "vqa"} for a, b in zip(row[::2], row[1::2], strict=True)]
        for row in (IMAGE_ROW, TEXT_ROW)
    ]
    rows = [
        {"images": [{"bytes": encode_image(), "path": "x.png"}], "texts": pairs[0]},
        {"images": [], "texts": pairs[1]},
    ]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema({"images": PICTURES, "texts": texts})), folder / "c.parquet")
    return folder / "c.parquet"


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1_700_000_000
            tar.addfile(member, io.BytesIO(data))
    return path


def webdataset(folder: Path) -> Path:
    rows = [
        {"id": "a", "image": "elsewhere/x.jpg", "conversations": from_value(IMAGE_ROW)},
        {"id": "b", "conversations": from_value(TEXT_ROW)},
    ]
    raw = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    members = [("000000.png", encode_image()), ("000000.json", raw[0]), ("000001.json", raw[1])]
    return write_tar(folder / "00000.tar", members)


def minigpt4(folder: Path) -> Path:
    write_image(folder / "image" / "2.jpg")
    rows = [{"image_id": "2", "caption": "The picture shows a bear."}, {"image_id": 2, "caption": "A bear."}]
    return write_list(folder / "filter_cap.json", {"annotations": rows})


Sample = Callable[[Path], Path]

SAMPLES: dict[Sample, str] = {
    llava: "llava",
    vision_flan: "llava",
    qwen_vl: "llava",
    sharegpt: "llava",
    llama_factory: "llama-factory",
    messages: "messages",
    ms_swift: "messages",
    ms_swift_2: "query-response",
    openai: "messages",
    trl: "prompt-completion",
    alpaca: "alpaca",
    parquet: "llava",
    arrow: "llava",
    feather: "llava",
    cauldron: "cauldron",
    webdataset: "llava",
}
