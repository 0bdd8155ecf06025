"""An inspected row: its losses, its pieces, its pictures."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from delta_attnmask.encoding.encoder import make_encoder
from delta_attnmask.errors import SettingsError
from delta_attnmask.inspecting.inspection import RowInspection
from delta_attnmask.inspecting.inspector import Inspector, read_pieces
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring.delta import score_batch
from delta_attnmask.settings import MaskSettings
from tests.inspecting.models import MODELS, byte_tokenizer

SETTINGS = MaskSettings(queries="answer", block=-4)


def row(image: str | list[str], question: str, answer: str) -> dict[str, Any]:
    marks = "<image>\n" * (1 if isinstance(image, str) else len(image))
    turns = [{"from": "human", "value": f"{marks}{question}"}, {"from": "gpt", "value": answer}]
    return {"id": "a", "image": image, "conversations": turns}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Write rows and pictures; gives the data set."""

    def write(rows: list[dict[str, Any]], **pictures: Image.Image) -> FileRows:
        for name, picture in pictures.items():
            picture.save(tmp_path / f"{name}.png")
        (tmp_path / "data.json").write_text(json.dumps(rows))
        return FileRows(tmp_path / "data.json", tmp_path)

    return write


def square(size: tuple[int, int], corner: tuple[int, int], side: int) -> Image.Image:
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).rectangle([*corner, corner[0] + side, corner[1] + side], fill="red")
    return picture


def test_tokens_add_up_to_the_score(embedded: Path, embedded_model: LoadedModel) -> None:
    dataset = FileRows(embedded / "pool.json", embedded / "images")
    inspector = Inspector(embedded_model, dataset, SETTINGS)
    for found in inspector.inspect_rows([3, 2400]):
        record = next(dataset.records(found.row, found.row + 1))
        sample = make_encoder(embedded_model).encode(record, dataset.load_images(record.images))
        score = score_batch(embedded_model.model, sample.inputs, sample.labels, SETTINGS)
        answers = [piece for piece in found.pieces if piece.loss is not None]
        n_answer_tokens = sum(piece.n_tokens for piece in answers)
        assert sum(piece.loss or 0 for piece in answers) / n_answer_tokens == pytest.approx(float(score.loss), abs=1e-5)
        assert sum(piece.delta or 0 for piece in answers) / n_answer_tokens == pytest.approx(
            float(score.delta), abs=1e-5
        )
        assert found.delta == pytest.approx(float(score.delta), abs=1e-6)
        assert (found.n_tokens, found.n_masked) == (sample.n_tokens, int(score.is_masked.sum()))
        assert sum(piece.saliency for piece in found.pieces) == pytest.approx(float(score.saliency.sum()), rel=1e-5)
        assert [len(grid) for grid in found.grids] == [64] * len(record.images)
        assert len(found.image_saliency) == len(found.image_is_masked) == 64 * len(record.images)


def test_an_empty_mask_changes_no_token(embedded: Path, embedded_model: LoadedModel) -> None:
    dataset = FileRows(embedded / "pool.json", embedded / "images")
    found = Inspector(embedded_model, dataset, MaskSettings(queries="all", fraction=0, block=-2)).inspect_rows([700])[0]
    assert {piece.delta for piece in found.pieces} == {None, 0.0}


def test_the_embedded_model_looks_at_the_object(write: Any, embedded_model: LoadedModel) -> None:
    """Not a law, but what the shipped model does: the square gets more attention than its share of the picture."""
    corners = [(6, 6), (38, 6), (6, 38), (38, 38)]
    pictures = {f"p{n}": square((64, 64), corner, 20) for n, corner in enumerate(corners)}
    dataset = write([row(f"{name}.png", "What color is the shape?", "red") for name in pictures], **pictures)
    for found, (x, y) in zip(Inspector(embedded_model, dataset, SETTINGS).inspect_rows(range(4)), corners, strict=True):
        inside, outside = list[float](), list[float]()
        for box, saliency in zip(found.grids[0], found.image_saliency, strict=True):
            left, top = 64 * (box.left + box.right) / 2, 64 * (box.top + box.bottom) / 2
            (inside if x < left < x + 20 and y < top < y + 20 else outside).append(saliency)
        assert sum(inside) / len(inside) > 1.2 * sum(outside) / len(outside)


def test_a_turned_picture_is_shown_and_placed_upright(tmp_path: Path, embedded_model: LoadedModel) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown upright, the picture is 80 wide and 120 high
    square((120, 80), (10, 10), 20).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "data.json").write_text(json.dumps([row("turned.jpg", "What color is it?", "red")]))
    dataset = FileRows(tmp_path / "data.json", tmp_path)
    found = Inspector(embedded_model, dataset, SETTINGS).inspect_rows([0])[0]
    assert found.pictures[0].size == (80, 120)
    boxes = torch.tensor(found.grids[0])
    edges = [*boxes[:, :2].amin(0).tolist(), *boxes[:, 2:].amax(0).tolist()]
    assert edges == pytest.approx([0, 1 / 6, 1, 5 / 6], abs=1e-6)  # CLIP's processor cuts out the middle


def test_a_model_whose_layout_is_unknown_gets_no_overlay(write: Any) -> None:
    dataset = write([row("a.png", "What?", "red")], a=square((40, 30), (5, 5), 10))
    found = Inspector(MODELS["Idefics2"](), dataset, MaskSettings.paper()).inspect_rows([0])[0]
    assert "regular grid" in found.layout_problem
    assert len(found.pictures) == 1
    assert (found.grids, len(found.image_saliency)) == ((), 4)


def test_bad_rows_come_back_with_their_reason(write: Any, embedded_model: LoadedModel) -> None:
    dataset = write([row("missing.png", "What?", "red"), {"id": "b", "conversations": []}])
    inspector = Inspector(embedded_model, dataset, SETTINGS)
    assert [bool(found.reason) for found in inspector.inspect_rows([0, 1])] == [True, True]
    with pytest.raises(SettingsError, match="8 blocks"):
        Inspector(embedded_model, dataset, MaskSettings(block=20))


def test_characters_of_several_tokens_are_whole() -> None:
    tokenizer = byte_tokenizer(added=["<image>"])
    ids = tokenizer("naïve 猫")["input_ids"]
    assert len(ids) == 10, "bytes"
    image = tokenizer.convert_tokens_to_ids("<image>")
    pieces = list(read_pieces(tokenizer, [*ids, image, image, ids[-1]], ["text"] * 10 + ["image"] * 2 + ["text"]))
    assert [text for _, text, _ in pieces] == [*"naïve ", "猫", "", "�"]
    assert [len(positions) for _, _, positions in pieces] == [1, 1, 2, 1, 1, 1, 3, 2, 1]
    assert [position for _, _, positions in pieces for position in positions] == list(range(13))


def is_answer_of(found: RowInspection) -> list[str]:
    return [piece.text for piece in found.pieces if piece.role == "answer"]


def test_answers_are_read_with_the_token_that_ends_them(write: Any, embedded_model: LoadedModel) -> None:
    dataset = write([row("a.png", "Which color?", "It is red.")], a=square((64, 64), (5, 5), 40))
    found = Inspector(embedded_model, dataset, SETTINGS).inspect_rows([0])[0]
    assert "".join(is_answer_of(found)) == "It is red.<|end|>"
    assert {piece.role for piece in found.pieces} == {"special", "image", "text", "answer"}
    (image,) = (piece for piece in found.pieces if piece.role == "image")
    assert (image.text, image.n_tokens, image.loss) == ("", 64, None)
