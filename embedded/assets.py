"""Renders the packages' drawings once, into arrays that the sources draw from (and that a training machine can carry).

`python -m embedded.assets` writes `embedded/cache/assets.npz` and `assets.json`, about 20 MB together.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from .concepts import Concept, concepts
from .sample import SIDE

FOLDER = Path(__file__).parent / "cache"
STYLES = ("noto", "twemoji", "fluent-emoji-flat", "emojione", "fxemoji")
NEW_STYLE = "fxemoji"  # never shown in training

# Topic of a drawing by the folder that its contributors filed it under; mixed folders are left out.
CLIPART_TOPICS = {
    "animals": "animals", "buildings": "buildings", "food": "food", "plants": "plants", "recreation/music": "music",
    "recreation/sports": "sports", "tools": "tools", "people/clothing": "clothing", "computer/hardware": "computers",
    "transportation/vehicles": "transport", "transportation/boating": "transport", "signs_and_symbols/flags": "flags",
    "geography": "maps", "shapes/arrows": "arrows", "recreation/games": "games",
}  # fmt: skip
CLIPART_PER_TOPIC = 110
PIXELS_PER_UNIT = {"px": 1.0, "pt": 1.25, "pc": 15.0, "in": 90.0, "mm": 90 / 25.4, "cm": 90 / 2.54}
NEAR_DUPLICATE = 12.0  # root mean square of the grey difference at 16 x 16 pixels


@dataclass(frozen=True)
class Assets:
    """Everything the sources draw from."""

    sprites: NDArray[np.uint8]  # (sprite, 64, 64, 4)
    sprite_names: list[tuple[str, str]]  # label, style
    shapes: NDArray[np.uint8]  # easy-VQA, (picture, 64, 64, 3); the first 4,000 are the package's training part
    shape_questions: list[list[tuple[str, str]]]  # by picture
    clipart: NDArray[np.uint8]  # (picture, 64, 64, 3)
    clipart_topics: list[str]
    clipart_groups: list[int]  # near duplicates and numbered variants share a group
    tables: dict[str, list[float]]  # title of a real table -> its values in order


@cache
def load_assets(folder: Path = FOLDER) -> Assets:
    """The assets that `main` wrote, made now where they are missing."""
    if not (folder / "assets.npz").exists():
        main()
    arrays = np.load(folder / "assets.npz")
    texts = json.loads((folder / "assets.json").read_text())
    return Assets(
        sprites=arrays["sprites"], shapes=arrays["shapes"], clipart=arrays["clipart"],
        sprite_names=[(label, style) for label, style in texts["sprite_names"]],
        shape_questions=[[(q, a) for q, a in asked] for asked in texts["shape_questions"]],
        clipart_topics=texts["clipart_topics"], clipart_groups=texts["clipart_groups"], tables=texts["tables"],
    )  # fmt: skip


def main() -> None:
    """Fetch, render, write."""
    from .fetch import fetch_all

    packages = fetch_all()
    sprites, sprite_names = render_sprites(packages)
    shapes, questions = read_easy_vqa(packages["easy-vqa"] / "easy_vqa" / "data")
    drawings, topics, groups = render_clipart(packages["openclipart-svg"] / "usr/share/openclipart/svg")
    tables = read_tables(packages["vega-datasets"] / "vega_datasets" / "_data")
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / "assets.npz", sprites=sprites, shapes=shapes, clipart=drawings)
    texts = {"sprite_names": sprite_names, "shape_questions": questions, "clipart_topics": topics,
             "clipart_groups": groups, "tables": tables}  # fmt: skip
    (FOLDER / "assets.json").write_text(json.dumps(texts))
    print(f"{len(sprites)} sprites, {len(shapes)} shapes, {len(drawings)} drawings, {len(tables)} tables")


def render_svg(svg: str) -> PILImage.Image:
    """An RGBA picture whose longer side is 128 pixels; raises ValueError where the renderer refuses."""
    import resvg_py

    width, height = _svg_size(svg)
    side = {"width": 2 * SIDE} if width >= height else {"height": 2 * SIDE}
    data = bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True, **side))
    return PILImage.open(io.BytesIO(data)).convert("RGBA")


def render_sprites(packages: dict[str, Path]) -> tuple[NDArray[np.uint8], list[tuple[str, str]]]:
    """Every concept in every style that has it; concepts with fewer than three trained styles are refused."""
    icons = {style: _icon_set(packages[f"@iconify-json/{style}"] / "package") for style in STYLES}
    hexcodes = _hexcodes(packages["emojibase-data"] / "package/en/data.json")
    sprites, names = [], []
    for concept in concepts():
        found = [style for style in STYLES if (name := _icon_name(concept, style, icons[style], hexcodes))]
        if len([style for style in found if style != NEW_STYLE]) < 3:
            raise SystemExit(f"{concept.label}: only in {found}")
        for style in found:
            name = _icon_name(concept, style, icons[style], hexcodes)
            sprites.append(_square(render_svg(_icon_svg(icons[style], name))))
            names.append((concept.label, style))
    return np.stack(sprites), names


def read_easy_vqa(data: Path) -> tuple[NDArray[np.uint8], list[list[tuple[str, str]]]]:
    """The package's 4,000 training pictures, then its 1,000 test pictures, with their questions."""
    pictures, asked = [], []
    for part in ("train", "test"):
        questions = json.loads((data / part / "questions.json").read_text())
        count = 1 + max(picture for _, _, picture in questions)
        by_picture: list[list[tuple[str, str]]] = [[] for _ in range(count)]
        for question, answer, picture in questions:
            by_picture[picture].append((question, answer))
        pictures += [
            np.asarray(PILImage.open(data / part / "images" / f"{i}.png").convert("RGB")) for i in range(count)
        ]
        asked += by_picture
    return np.stack(pictures), asked


def render_clipart(root: Path) -> tuple[NDArray[np.uint8], list[str], list[int]]:
    """Public-domain drawings by topic, exact duplicates dropped, near duplicates grouped."""
    pixels, topics, stems, seen = [], [], [], set()
    for path, topic in _clipart_files(root):
        picture = _render_clipart(path)
        if picture is None or topics.count(topic) >= CLIPART_PER_TOPIC or picture.tobytes() in seen:
            continue
        seen.add(picture.tobytes())
        pixels.append(picture)
        topics.append(topic)
        stems.append(re.sub(r"[\W\d_]+", " ", path.stem)[:12])
    stacked = np.stack(pixels)
    return stacked, topics, _groups(stacked, stems)


def read_tables(data: Path) -> dict[str, list[float]]:
    """Real series by title; every one has at least 20 values."""
    import csv

    tables: dict[str, list[float]] = {}
    wheat = json.loads((data / "wheat.json").read_text())
    tables["the price of wheat"] = [float(row["wheat"]) for row in wheat]
    tables["weekly wages"] = [float(row["wages"]) for row in wheat if "wages" in row]
    driving = json.loads((data / "driving.json").read_text())
    tables["miles driven"] = [float(row["miles"]) for row in driving]
    tables["the price of gas"] = [float(row["gas"]) for row in driving]
    tables["barley yields"] = [float(row["yield"]) for row in json.loads((data / "barley.json").read_text())]
    cars = [
        row for row in json.loads((data / "cars.json").read_text()) if row["Horsepower"] and row["Miles_per_Gallon"]
    ]
    tables["horsepower of cars"] = [float(row["Horsepower"]) for row in cars]
    tables["miles per gallon"] = [float(row["Miles_per_Gallon"]) for row in cars]
    crimea = json.loads((data / "crimea.json").read_text())
    tables["deaths by disease"] = [float(row["disease"]) for row in crimea]
    with (data / "seattle-weather.csv").open() as file:
        weather = list(csv.DictReader(file))
    tables["the warmest hour of a day"] = [float(row["temp_max"]) for row in weather]
    tables["wind speed"] = [float(row["wind"]) for row in weather]
    with (data / "us-employment.csv").open() as file:
        jobs = list(csv.DictReader(file))
    tables["jobs in construction"] = [float(row["construction"]) for row in jobs]
    tables["jobs in retail trade"] = [float(row["retail_trade"]) for row in jobs]
    with (data / "stocks.csv").open() as file:
        tables["stock prices"] = [float(row["price"]) for row in csv.DictReader(file)]
    with (data / "iowa-electricity.csv").open() as file:
        tables["electricity generated"] = [float(row["net_generation"]) for row in csv.DictReader(file)]
    return tables


def _hexcodes(path: Path) -> dict[str, str]:
    return {entry["label"]: entry["hexcode"].replace("-FE0F", "").lower() for entry in json.loads(path.read_text())}


def _icon_set(package: Path) -> dict[str, Any]:
    icons = json.loads((package / "icons.json").read_text())
    icons["chars"] = json.loads((package / "chars.json").read_text())
    return icons


def _icon_name(concept: Concept, style: str, icons: dict[str, Any], hexcodes: dict[str, str]) -> str:
    """The style's icon of the concept, or the empty string."""
    name = icons["chars"].get(hexcodes[concept.emoji], "")
    if name in icons["icons"]:
        return name
    plain = concept.emoji.replace("’", "").replace("'", "")
    slug, joined = plain.replace(" ", "-").lower(), re.sub(r"[ -]", "", plain)
    tries = (
        [concept.fx_name]
        if style == NEW_STYLE and concept.fx_name
        else [slug, f"{slug}-face", joined, joined.removesuffix("face")]
    )
    return next((name for name in tries if name in icons["icons"]), "")


def _icon_svg(icons: dict[str, Any], name: str) -> str:
    icon = icons["icons"][name]
    width, height = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="{box}">{icon["body"]}</svg>'
    )


def _square(picture: PILImage.Image) -> NDArray[np.uint8]:
    """The drawing cropped to its ink and centred in 64 x 64."""
    box = picture.getchannel("A").getbbox()
    if box is None:
        raise SystemExit("an icon rendered empty")
    picture = picture.crop(box)
    scale = SIDE / max(picture.size)
    picture = picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), PILImage.Resampling.LANCZOS
    )
    canvas = PILImage.new("RGBA", (SIDE, SIDE))
    canvas.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    return np.asarray(canvas)


def _clipart_files(root: Path) -> list[tuple[Path, str]]:
    """Drawings marked as public domain, with their topic."""
    files = []
    for path in sorted(root.rglob("*.svg")):
        folder = path.parent.relative_to(root).as_posix()
        topic = next((t for prefix, t in CLIPART_TOPICS.items() if (folder + "/").startswith(prefix + "/")), None)
        if topic and _is_public_domain(path.read_text(errors="replace")):
            files.append((path, topic))
    return files


def _is_public_domain(svg: str) -> bool:
    marks = re.findall(r'license[^>]*resource="([^"]*)"', svg)
    return bool(marks) and all("publicdomain" in mark.lower() for mark in marks) and "gpl" not in svg.lower()


def _render_clipart(path: Path) -> NDArray[np.uint8] | None:
    try:
        picture = render_svg(_with_view_box(path.read_text(errors="replace")))
    except ValueError:
        return None  # the renderer refuses some old files: broken XML, undeclared entities
    if picture.getchannel("A").getbbox() is None:
        return None
    paper = PILImage.new("RGBA", (SIDE, SIDE), (255, 255, 255, 255))
    paper.alpha_composite(PILImage.fromarray(_square(picture)))
    pixels = np.asarray(paper.convert("RGB"))
    return pixels if pixels.std() > 12 else None  # near-empty pages


def _svg_size(svg: str) -> tuple[float, float]:
    root = re.search(r"<svg\b[^>]*>", svg)
    if root is None:
        raise ValueError("no svg element")
    numbers = [re.search(rf'\s{name}="([\d.]+)', root.group()) for name in ("width", "height")]
    if all(numbers):
        return float(numbers[0].group(1)), float(numbers[1].group(1))  # type: ignore[union-attr]
    box = re.search(r'viewBox="([^"]+)"', root.group())
    values = re.split(r"[\s,]+", box.group(1).strip()) if box else ["0", "0", "1", "1"]
    return float(values[2]), float(values[3])


def _with_view_box(svg: str) -> str:
    """Lengths with a unit become pixels (at the 90 a inch of old Inkscape) and a missing viewBox is added."""
    root = re.search(r"<svg\b[^>]*>", svg)
    if root is None:
        raise ValueError("no svg element")
    tag = re.sub(r'(\s(?:width|height))="([\d.]+)(pt|mm|cm|in|px|pc)"', _in_pixels, root.group())
    if "viewBox" not in tag:
        width, height = _svg_size(svg)
        tag = tag.replace("<svg", f'<svg viewBox="0 0 {width} {height}"', 1)
    return svg.replace(root.group(), tag, 1)


def _in_pixels(length: re.Match[str]) -> str:
    name, number, unit = length.groups()
    return f'{name}="{float(number) * PIXELS_PER_UNIT[unit]:.4f}"'


def _groups(pictures: NDArray[np.uint8], stems: list[str]) -> list[int]:
    """A group number per drawing: connected by a near-identical picture or by the same name but for digits."""
    small = np.stack([np.asarray(PILImage.fromarray(p).convert("L").resize((16, 16)), np.float32) for p in pictures])
    flat = small.reshape(len(small), -1)
    group = list(range(len(flat)))
    first_by_stem: dict[str, int] = {}
    for i in range(len(flat)):
        distance = np.sqrt(((flat[:i] - flat[i]) ** 2).mean(1)) if i else np.empty(0)
        close = set(np.flatnonzero(distance < NEAR_DUPLICATE).tolist())
        close.add(first_by_stem.setdefault(stems[i], i))
        joined = {group[j] for j in close}
        group = [i if g in joined else g for g in group]
        group[i] = i
    return group


if __name__ == "__main__":
    main()
