"""The evidence run: every way to select, control and rival at equal budgets, over seeds, bases and pools.

    python -m benchmarks.suite.bases --lessons LESSONS --out BASE --minutes 30                    # once a base
    python -m benchmarks.evidence --out RUN --base BASE --base-name A --pool half --small --group core rounds methods
    python -m benchmarks.evidence --out RUN2 --base BASE2 --base-name B --pool half --small --recipe RECIPE

A command is about one base on one pool: it builds the suite (or takes `--suite`), chooses the recipe on the validation
split by defect-free picks (or takes `--recipe`, RUN/recipe.json of another run), scores the pool with the product's own
commands, trains, and adds each finished training to the CSV that all bases and pools share. Beside it are a JSON file,
which says what made them, and RESULTS-*.md, the report. Rerun a command to resume, with the same or with more groups; a
name that the CSV has for another suite, base or recipe is refused.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.suite.build import Sizes, build, made_with

from .jobs import GROUPS, plan_jobs, run_all
from .methods import JUDGES, read_pool
from .report import write_report
from .scoring import RIVALS, ROUNDS, calibrated, score_pool
from .training import Recipe
from .tuning import tune
from .workplace import Workplace, check_identity, describe_machine, how_taught, record

SIZES = {
    "tiny": Sizes(pool=300, dev=40, test=150),
    "small": Sizes(pool=600, dev=40, test=150),
    "large": Sizes(),
}
POOLS: dict[str, dict[str, object]] = {
    "half": {"defects": 0.5},
    "defects-30": {"defects": 0.3},
    "defects-15": {"defects": 0.15},
    "clean": {"defects": 0.0},
    "skewed": {"defects": 0.5, "skewed": True},
    "natural": {"defects": 0.0, "natural": True},
}
CSV = Path(__file__).with_name("judge.csv")


def main() -> None:
    options = read_options()
    suite = options.suite or options.out / "suite"
    place = Workplace(options.out, suite, options.base, options.base_name, options.pool, options.csv)
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    require_suite(suite, replace(SIZES[options.size], **POOLS[options.pool]))
    recipe_file = options.recipe or options.out / "recipe.json"
    if not recipe_file.exists():
        tune(place, recipe_file, options.device)
    recipe = Recipe(**json.loads(recipe_file.read_text())["recipe"])
    check_identity(place, asdict(recipe))
    seconds = score_pool(place, options.group, options.device)
    describe_scores(place, seconds)
    shown = f"--base-name {options.base_name} --pool {options.pool} --{options.size}"
    record(place, options=shown, taught=how_taught(place.base), machine=describe_machine())
    jobs = plan_jobs(options.base_name, options.pool, options.group, options.seeds)
    run_all(place, jobs, recipe, options.device, options.processes)
    write_report(options.csv)
    print(f"{time.monotonic() - started:.0f} s in this start")


def require_suite(folder: Path, sizes: Sizes) -> None:
    """Build the suite, or make sure that the one that is there was built like this."""
    file = folder / "suite.json"
    if not file.exists():
        build(folder, sizes)
    if (known := json.loads(file.read_text()).get("made_with")) != made_with(sizes):
        raise SystemExit(f"{folder} was built with {known}; give another --suite or --out")


def describe_scores(place: Workplace, seconds: dict[str, float]) -> None:
    """Record what the calibrations chose, and how well each score that is there separates known defects."""
    pool = read_pool(place)
    rounds = [n for n in (0, *ROUNDS.values()) if f"score_{n}" in seconds]
    scores = ["low_loss", *JUDGES, "delta", "chosen", *(("old", "paper", *RIVALS) if "paper" in seconds else ())]
    scores += [f"rounds{n}_{name}" for n in rounds if n for name in ("low_loss", *JUDGES, "delta", "chosen")]
    is_known = (pool.kinds != "").any()
    separation = {name: {k: round(v, 4) for k, v in pool.separation(name).items()} for name in scores if is_known}
    record(
        place,
        scoring_s=seconds,
        defects=round(float((pool.kinds != "").mean()), 4),
        calibrations={str(n): calibrated(place.calibration(n)) for n in rounds},
        auroc=separation,
    )


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the scores, one for each base and pool")
    parser.add_argument("--base", type=Path, required=True, help="the model that scores and is trained")
    parser.add_argument("--base-name", required=True, help="what the results call it, such as A")
    parser.add_argument("--pool", choices=POOLS, default="half", help="what is wrong in the pool")
    size = parser.add_mutually_exclusive_group(required=True)
    for name, sizes in SIZES.items():
        size.add_argument(
            f"--{name}", dest="size", action="store_const", const=name, help=f"{sizes.pool} rows a source"
        )
    parser.add_argument("--suite", type=Path, help="folder of a suite to share between bases; OUT/suite if not given")
    parser.add_argument(
        "--recipe", type=Path, help="recipe.json of another run; chosen on the validation split if none"
    )
    parser.add_argument("--group", nargs="+", choices=GROUPS, default=["core"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--csv", type=Path, default=CSV, help="results of all bases and pools")
    parser.add_argument("--processes", type=int, default=1 if torch.cuda.is_available() else 2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
