"""Every setting and every rival against the known defects of the embedded pool. Labels are read here and nowhere else.

    delta-attnmask demo --out demo-run
    delta-attnmask score --model demo-run/data/model --data demo-run/data/pool.json --images demo-run/data/images \\
        --out sweep-run --settings demo-run/run --sweep \\
        --also el2n,entropy,margin,image_share,loss_without_image,loss_alone,loss_without_question
    python -m benchmarks.labels --run sweep-run --defects demo-run/data/defects.json

AUROC: the chance that a clean row scores above a defective one; "within" is its mean over the sources.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from delta_attnmask.calibrating.scored import FORMS
from delta_attnmask.calibration import Candidate
from delta_attnmask.derived import derive, derived_names, needed_columns
from delta_attnmask.runs import RunFolder
from delta_attnmask.settings import MaskSettings
from delta_attnmask.statistics import auroc

Values = NDArray[np.float64]


def candidates(run: RunFolder, scores: pa.Table) -> dict[str, Values]:
    """Every score of the run by name: the chosen one, each setting in each form, each rival."""
    columns = {
        field.name: np.asarray(scores[field.name].to_numpy(zero_copy_only=False), dtype=np.float64)
        for field in scores.schema
        if pa.types.is_floating(field.type) or field.name == "n_answer_tokens"
    }
    form = str(run.manifest.settings["form"])
    found = {f"CHOSEN: {form}": columns[form] if form in columns else derive(form, columns.__getitem__)}
    found |= {
        name: values for name, values in columns.items() if name not in {"masked_loss", "delta", "n_answer_tokens"}
    }
    found |= {name: derive(name, columns.__getitem__) for name in rivals(columns)}
    sweep = run.read_side("sweep")
    grid = [MaskSettings.from_dict(one) for one in run.manifest.settings["sweep"]]
    n_settings = len(grid)
    masked = sweep["masked_loss"].to_numpy().astype(np.float64).reshape(-1, n_settings)
    order = {row: line for line, row in enumerate(sweep["row"].to_numpy()[::n_settings].tolist())}
    masked = masked[[order[row] for row in scores["row"].to_pylist()]]
    for setting, losses in zip(grid, masked.T, strict=True):
        own = columns | {"masked_loss": losses, "delta": losses - columns["loss"]}
        for name in FORMS:
            found[str(Candidate(name, setting))] = own[name] if name in own else derive(name, own.__getitem__)
    return found


def rivals(columns: dict[str, Values]) -> list[str]:
    """The derived columns that need no mask."""
    return [n for n in derived_names() if needed_columns(n) <= columns.keys() - {"masked_loss", "delta"}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--defects", type=Path, required=True)
    parser.add_argument("--top", type=int, default=12, help="how many settings of the grid to print")
    options = parser.parse_args()
    run = RunFolder.open(options.run)
    scores = run.read_scores()
    scores = scores.filter(pc.equal(scores["status"], "ok"))
    kind_of = {int(row): kind for row, kind in json.loads(options.defects.read_text()).items()}
    kinds = np.array([kind_of.get(row, "") for row in scores["row"].to_pylist()])
    sources = np.array(scores["source"].to_pylist())
    found = candidates(run, scores)
    pooled = {name: auroc(values[kinds == ""], values[kinds != ""]) for name, values in found.items()}
    ranked = sorted(found, key=lambda name: -np.nan_to_num(pooled[name]))
    controls = [name for name in ranked if "tokens, queries" in name]
    settings = [name for name in ranked if "(" in name and name not in controls]
    others = [name for name in ranked if "(" not in name]
    names = sorted(set(kinds.tolist()) - {""})
    print("| score | pooled | within | " + " | ".join(names) + " |")
    print("|---|" + "---|" * (2 + len(names)))
    paper = [name for name in settings if name.startswith("delta (queries all, tokens all, fraction 0.2, block -2)")]
    for name in dict.fromkeys([*others, *settings[: options.top], *paper, settings[-1], *controls[:1]]):
        print_line(name, found[name], pooled[name], kinds, sources, names)
    best = pooled[settings[0]]
    print(f"\nbest setting {best:.3f}, median {np.median([pooled[n] for n in settings]):.3f}, {len(settings)} in all")


def print_line(
    name: str, values: Values, pooled: float, kinds: NDArray[np.str_], sources: NDArray[np.str_], names: list[str]
) -> None:
    clean = kinds == ""
    within = np.nanmean([auroc(values[clean & (sources == s)], values[~clean & (sources == s)]) for s in set(sources)])
    by_kind = [auroc(values[clean], values[kinds == kind]) for kind in names]
    print(f"| {name} | {pooled:.3f} | {within:.3f} | " + " | ".join(f"{value:.2f}" for value in by_kind) + " |")


if __name__ == "__main__":
    main()
