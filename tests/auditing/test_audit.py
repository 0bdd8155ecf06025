"""An audit's figures equal those of plain counts, and name what a selection skews."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delta_attnmask.auditing.run_audit import audit_run
from delta_attnmask.errors import ArtifactError
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.quotas import QUOTAS
from delta_attnmask.selecting.run_selection import select_from_run
from tests.selecting.tables import make_scores, skewed_deltas, write_run

N_ROWS = 600
TOP = {"rule": "top"}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run", *skewed_deltas(N_ROWS))


def make_run(folder: Path, deltas: list[float], sources: list[str]) -> RunFolder:
    types = [("word", "number")[row % 2] for row in range(N_ROWS)]
    questions = [("what?", "where?", "who?")[row % 3] for row in range(N_ROWS)]
    return write_run(folder, make_scores([None, *deltas[1:]], sources, types, questions))


def audit(run: RunFolder, options: dict = TOP, **arguments: object) -> dict:
    report = audit_run(run, select_from_run(run, "20%", by="delta", **options), **arguments)
    return json.loads(json.dumps(report))


def test_the_score(run):
    report = audit(run)
    assert (report["n_rows"], report["n_candidates"], report["n_kept"]) == (600, 599, 120)
    assert report["correlations"]["turns"] is None  # never changes
    assert abs(report["correlations"]["answer length"]) < 0.1
    assert [one["name"] for one in report["sources"]] == ["s3", "s2", "s1", "s0"]
    assert sum(one["n_rows"] for one in report["sources"]) == 599
    assert 0.4 < report["between_sources"] < 0.7


def test_the_plain_top_skews_the_sources_and_a_quota_does_not(run):
    top, quota = audit(run)["mix"], audit(run, {"quota_by": "source"})["mix"]
    assert top["source"]["distortion"] > 0.3 > 0.01 > quota["source"]["distortion"]
    largest = top["source"]["largest"][0]
    assert largest["name"] == "s3"
    assert largest["after"] > 2 * largest["before"]
    assert top["source"]["n_strata_lost"] <= 1
    assert {one["name"] for one in top["source and answer_type"]["largest"]} == {
        f"s{source} / {kind}" for source in range(4) for kind in ("word", "number")
    }
    for change in (*top.values(), *quota.values()):
        assert sum(one["after"] for one in change["largest"]) == pytest.approx(1, abs=0.01)


def test_overlaps(run):
    overlap = audit(run)["overlap"]
    assert overlap["random"] == pytest.approx(0.2, abs=0.001)
    # The loss is the same everywhere, so all that grows with delta keeps the same rows.
    assert overlap["columns"]["relative_delta"] == {"overlap": 1.0, "spearman": 1.0}
    assert overlap["columns"]["low_loss"]["spearman"] is None
    assert not {"n_tokens", "row", "delta"} & set(overlap["columns"])
    assert overlap["settings"] == overlap["runs"] == {}


def test_overlap_with_another_run(run, tmp_path):
    deltas, sources = skewed_deltas(N_ROWS)
    same, turned = (make_run(tmp_path / str(sign), [sign * d for d in deltas], sources) for sign in (1, -1))
    found = audit(run, others={"same": same, "turned": turned})["overlap"]["runs"]
    assert found["same"] == {"overlap": 1.0, "spearman": 1.0}
    assert found["turned"] == {"overlap": 0.0, "spearman": -1.0}
    other = write_run(tmp_path / "other", make_scores([1.0]))
    with pytest.raises(ArtifactError, match="made of other data"):
        audit(run, others={"other": other})


def test_overlap_with_settings_of_a_sweep(run):
    (run.path / "sweep").mkdir()
    deltas = run.read_scores()["delta"].to_numpy()
    for unit in range(run.n_units):
        rows = np.array([row for row in run.unit_rows(unit) if row])
        parts = [
            pa.table(
                {
                    "row": rows,
                    "block": np.full(len(rows), block),
                    "fraction": np.full(len(rows), 0.2),
                    "masked_loss": 1 + sign * deltas[rows],
                    "delta": sign * deltas[rows],
                }
            )
            for block, sign in ((-2, 1), (-4, -1))
        ]
        pq.write_table(pa.concat_tables(parts), run.unit_path(unit, "sweep"))
    found = audit(run)["overlap"]["settings"]
    assert found["block -2"] == {"overlap": 1.0, "spearman": 1.0}
    assert found["block -4"] == {"overlap": 0.0, "spearman": -1.0}


def test_expected_defects_are_those_of_the_quota(run):
    assert audit(run)["defects"] is None
    options = {quota: {"planted_ratio": 0.5 if quota == "source" else 0.25} for quota in QUOTAS}
    report = {"form": "delta", "settings": {}, "warnings": ["blind"], "quota": {"options": options}}
    (run.path / "calibration.json").write_text(json.dumps(report))
    top, quota = audit(run), audit(run, {"quota_by": "source"})
    assert top["defects"]["expected"] == {"10%": 0.025, "20%": 0.05, "40%": 0.1}
    assert quota["defects"]["planted_ratio"] == 0.5
    assert audit(run, {"quota_by": "n_turns"})["defects"] is None
    assert top["warnings"] == ["blind"]


def test_costs_are_those_of_this_run(run):
    (run.path / "pace.json").write_text(json.dumps({"n_rows": 600, "seconds": 60.0}))
    costs = audit(run, train_rate=2.0, epochs=2)["costs"]
    assert (costs["rows_per_s"], costs["scoring_s"]) == (10.0, 60.0)
    at_20 = next(line for line in costs["budgets"] if line["keep"] == 0.2)
    assert at_20 == {
        "keep": 0.2,
        "n_kept": 120,
        "pays_below": 16.0,  # 480 rows twice in 60 s
        "training_all_s": 600.0,
        "training_kept_s": 120.0,
        "saved_s": 420.0,
    }
    (run.path / "pace.json").write_text("{}")
    assert audit(run)["costs"] is None
