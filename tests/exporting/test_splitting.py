"""Test splits: no image and no words in both parts, the mix kept, rows byte for byte, nothing overwritten."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delta_attnmask import SettingsError
from delta_attnmask.cli import main
from delta_attnmask.exporting.splitting import split_rows
from delta_attnmask.reading.rows import FileRows


def row(*images: str, text: str = "Why?", source: str = "a") -> dict[str, Any]:
    asked = "<image>" * len(images) + text
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": "So."}]
    return {"source": source, "conversations": turns} | ({"image": list(images)} if images else {})


def images_of(rows: list[dict[str, Any]]) -> set[str]:
    """The paths of images, which a row gives as a text or a list."""
    given = [one.get("image", []) for one in rows]
    return {path for paths in given for path in ([paths] if isinstance(paths, str) else paths)}


def test_what_shares_an_image_or_words_stays_together(tmp_path: Path) -> None:
    chain = [row("a.png", "b.png"), row("b.png", "c.png"), row("x/../c.png")]
    texts = [row(text="How many?"), row(text="How many?"), row(text="How much?")]
    others = [row(f"{number}.png") for number in range(14)]
    rows = [*chain, *texts, *others]
    for seed in range(8):
        found = split_rows(rows, 6, images=tmp_path, seed=seed)
        in_test = set(found.test.tolist())
        assert len(in_test) <= 6
        assert len({number in in_test for number in range(3)}) == 1
        assert len({number in in_test for number in (3, 4)}) == 1
        assert sorted([*found.test, *found.rest]) == list(range(20))
    assert [*split_rows(rows, 6, images=tmp_path, seed=3).test] == [*split_rows(rows, 6, images=tmp_path, seed=3).test]


def test_the_mix_of_sources_is_kept_and_rows_that_cannot_be_used_are_in_the_rest() -> None:
    rows = [row(text=f"{number}?", source="abb"[number % 3]) for number in range(60)]
    rows[7] = {"conversations": []}
    found = split_rows(rows, "20%")
    assert Counter(rows[number]["source"] for number in found.test.tolist()) == {"a": 4, "b": 8}
    assert 7 in found.rest


def test_images_in_the_file_are_known_by_their_bytes(tmp_path: Path) -> None:
    turns = [[{"role": "user", "content": "<image>Why?"}, {"role": "assistant", "content": f"{n}"}] for n in range(8)]
    images = [[{"bytes": bytes([n // 2]) * 9, "path": f"{n}.png"}] for n in range(8)]
    pq.write_table(pa.table({"messages": turns, "images": images}), tmp_path / "data.parquet")
    found = split_rows(tmp_path / "data.parquet", 4)
    assert len(found.test) == 4
    assert {number // 2 for number in found.test.tolist()}.isdisjoint(number // 2 for number in found.rest.tolist())


def test_what_cannot_be_split_is_refused() -> None:
    together = [row("a.png") for _ in range(9)]
    with pytest.raises(SettingsError, match="smallest group"):
        split_rows(together, 3)
    for amount in ("100%", 9, 10):
        with pytest.raises(SettingsError, match="leaves none"):
            split_rows(together, amount)


def test_the_command_writes_rows_unchanged_and_overwrites_nothing(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test, rest = tmp_path / "test.json", tmp_path / "rest.json"
    given = ["split", "--data", str(embedded / "pool.json"), "--limit", "300"]
    given += ["--test", str(test), "--rest", str(rest)]

    def call(*options: str) -> int:
        with pytest.raises(SystemExit) as stopped:
            main([*given, *options])
        return int(stopped.value.code or 0)

    assert call("--rows", "50") == 0
    written = [json.loads(path.read_text()) for path in (test, rest)]
    assert images_of(written[0]).isdisjoint(images_of(written[1]))
    pool = json.loads((embedded / "pool.json").read_text())[:300]
    assert sorted(map(json.dumps, [*written[0], *written[1]])) == sorted(map(json.dumps, pool))
    before = FileRows(test).fingerprint
    assert call("--rows", "50") == 2
    assert "exists and isn't replaced" in capsys.readouterr().err
    assert FileRows(test).fingerprint == before
    rest.unlink(), test.unlink()
    assert call("--rows", "50", "--share", "10%") == 2
    assert call("--share", "most") == 2
    assert not rest.exists()
