"""Hostile files, drawn from a seed: rows in every container, then bytes that are changed, cut, doubled or put in."""

import io
import json
import os
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tests.reading.samples import PICTURES, TALK, encode_image, write_tar

from benchmarks.fuzz.rows import NAMES

KINDS = ("JSON", "JSONL", "annotations", "parquet", "arrow file", "arrow stream", "tar")
_EXTENSIONS = (".json", ".jsonl", ".parquet", ".arrow", ".tar", ".csv", "")
_PIECES = (
    b"\0",
    b"\xff" * 8,
    b"[" * 5000,
    b'{"a":' * 5000,
    b'"',
    b"\\",
    b"\xef\xbb\xbf",
    b"9" * 5000,
    b"\x1f\x8b",
    b",",
)


def write_images(folder: Path) -> None:
    """The pictures and the traps that rows name; one folder that a link leads out of it to."""
    folder.mkdir(parents=True)
    red = Image.new("RGB", (64, 48), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    red.save(folder / "red.png")
    Image.new("L", (1, 10_000)).save(folder / "tall.png")
    Image.new("P", (1, 1)).save(folder / "dot.gif")
    red.convert("CMYK").save(folder / "cmyk.jpg")
    Image.new("I;16", (20, 20), 40_000).save(folder / "deep.png")
    red.save(folder / "turned.jpg", exif=exif)
    red.save(folder / "film.gif", save_all=True, append_images=[Image.new("RGB", (64, 48), "blue")] * 3)
    (folder / "wrong.jpg").write_bytes(encode_image())
    _write_traps(folder)


def _write_traps(folder: Path) -> None:
    noise = io.BytesIO()
    Image.effect_noise((200, 200), 60).save(noise, "JPEG", progressive=True)
    data = noise.getvalue()
    (folder / "bomb.png").write_bytes(_bomb(30_000, 30_000))
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "scans.jpg").write_bytes(data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 2000)
    Image.new("RGB", (9, 9)).save(folder / "x.eps")
    (folder / "empty.png").touch()
    (folder / "folder").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "loop").symlink_to("loop")
    (folder / "outside").symlink_to("/")


def _bomb(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width // 8 + 1) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def write_file(folder: Path, kind: str, rows: list[Any], chance: random.Random, *, damage: bool) -> Path:
    """One file of these rows; a damaged one has other bytes, and often another extension."""
    data = encode_rows(folder, kind, rows, chance)
    extension = {"JSONL": ".jsonl", "parquet": ".parquet", "tar": ".tar"}.get(kind, ".json")
    if damage:
        data = _damage(data, chance)
        extension = chance.choice(_EXTENSIONS)
    path = folder / f"case{extension}"
    path.write_bytes(data)
    return path


def encode_rows(folder: Path, kind: str, rows: list[Any], chance: random.Random) -> bytes:
    if kind == "JSON":
        return json.dumps(rows).encode()
    if kind == "JSONL":
        return "\n".join(map(json.dumps, rows)).encode()
    if kind == "annotations":
        return json.dumps({"annotations": rows}).encode()
    if kind == "tar":
        members = [
            item
            for n, row in enumerate(rows)
            for item in (
                (f"{n}.json", json.dumps(row).encode()),
                (f"{n}.png", (folder / "images" / NAMES[0]).read_bytes()),
            )
        ]
        return write_tar(folder / "rows.bin", members).read_bytes()
    return _encode_table(_table(rows), kind, folder / "rows.bin", chance)


def _table(rows: list[Any]) -> pa.Table:
    """The rows as columns: what fits no column becomes its JSON."""
    found = [row if isinstance(row, dict) else {} for row in rows]
    talks = [row.get("conversations") for row in found]
    columns: dict[str, pa.Array] = {
        "conversations": pa.array([_talk(talk) for talk in talks], TALK),
        "images": pa.array([[{"bytes": encode_image(), "path": None}] * (n % 2) for n in range(len(rows))], PICTURES),
        "rest": pa.array([json.dumps(row) for row in rows]),
        "when": pa.array(range(len(rows)), pa.timestamp("us", tz="Nowhere/Land")),
    }
    return pa.table(columns)


def _talk(talk: Any) -> list[dict[str, str]] | None:
    if not isinstance(talk, list):
        return None
    turns = [turn for turn in talk if isinstance(turn, dict)]
    return [{name: json.dumps(turn.get(name)).strip('"') for name in ("from", "value")} for turn in turns]


def _encode_table(table: pa.Table, kind: str, path: Path, chance: random.Random) -> bytes:
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=2, compression=chance.choice(["zstd", "snappy", "none"]))
        return path.read_bytes()
    options = pa.ipc.IpcWriteOptions(compression=chance.choice(["zstd", "lz4", None]))
    begin = pa.ipc.new_file if kind == "arrow file" else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as file, begin(file, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=2)
    return path.read_bytes()


def _damage(data: bytes, chance: random.Random) -> bytes:
    content = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(content) + 1)
        what = chance.randrange(5)
        if what == 0:
            del content[at:]
        elif what == 1:
            content[at:at] = chance.choice(_PIECES)
        elif what == 2:
            content[at:at] = content[at : at + chance.randrange(200)]
        elif what == 3:
            del content[at : at + chance.randrange(1, 40)]
        elif at < len(content):
            content[at] = chance.randrange(256)
    return bytes(content)
