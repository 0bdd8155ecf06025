"""The measurement for whoever has a GPU runs from end to end with tiny models on a CPU."""

import json
from pathlib import Path

import pytest
import torch
from benchmarks.gpu.__main__ import TINY, main
from benchmarks.gpu.findings import GOALS, Findings, Place


@pytest.mark.parametrize("part", [1, 2, 3])
def test_every_step_runs(part: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gpu.json"
    models = [TINY[0], TINY[2]] if part == 1 else [TINY[0]]  # the one with patches, the one with masks
    main(["--part", str(part), "--tiny", "--json", str(path), "--models", *models])
    found = json.loads(path.read_text())[f"part {part}"]
    assert all(check["what"] in GOALS for check in found["checks"]), capsys.readouterr().out
    steps = {check["step"] for check in found["checks"]}
    assert len(steps) == {1: 2 * 5 + 2, 2: 3, 3: 1}[part]
    if part == 1:
        missed = [check for check in found["checks"] if not check["is_met"]]
        assert {check["what"] for check in missed} <= {"ms that a new shape costs once"}
    printed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(f"| part {part} ") for line in printed) == len(found["checks"])


def test_a_step_that_fails_is_a_finding_and_no_step_begins_too_late(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    place = Place(torch.device("cpu"), "any", is_tiny=True)

    def fail(findings: Findings, place: Place) -> None:
        findings.check("rows lost where memory runs out", 0)
        raise ValueError("broken | so")

    first = Findings(path, "part 1", 60)
    first.run("one", fail, place)
    assert not first.is_good
    second = Findings(path, "part 2", -1)
    second.run("two", fail, place)
    assert not second.is_good
    assert second.table().splitlines()[2:] == [
        "| part 1 | one | rows lost where memory runs out | 0 | ≤ 0 | pass |",
        "| part 1 | one | ValueError: broken / so |  |  | **fail** |",
        "| part 2 | two | not done: no time was left |  |  | – |",
    ]
    assert list(json.loads(path.read_text())) == ["part 1", "part 2"]
