"""The evidence run: every method, control and rival at equal budgets, over seeds.

    python -m benchmarks.suite.bases --lessons LESSONS --out BASE --minutes 25                    # once
    python -m benchmarks.suite.bases --lessons LESSONS --out OTHER --shape slim --minutes 25      # once
    python -m benchmarks.evidence --out DIR --base BASE --other OTHER --small

It builds the suite, chooses the recipe on the validation split by defect-free picks (or takes `--recipe`),
scores the pool with the product's own commands, trains, and writes results.csv, results.md and plots to DIR. Started
again, with the same or with other groups of trainings, it goes on where it stopped; a folder of another suite, base or
recipe is refused. Variants of the pool: `--out DIR2 --skewed --recipe DIR/recipe.json`, or `--defects 0.15`.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.suite.build import Sizes, build, made_with

from .jobs import GROUPS, plan_jobs, run_all
from .report import write_report
from .scoring import score_pool
from .training import Recipe
from .tuning import tune
from .workplace import Workplace, check_identity, describe_machine, write_json

SMALL, LARGE = Sizes(pool=600, dev=40, test=150), Sizes()
BUDGETS = (0.05, 0.1, 0.2, 0.4)


def main() -> None:
    options = read_options()
    number, n_parts = map(int, options.part.split("/"))
    if not 1 <= number <= n_parts:
        raise SystemExit(f"--part {options.part}: expected I/N with I from 1 to N")
    if "transfer" in (options.group or ()) and not options.other:
        raise SystemExit("--group transfer: needs --other, the model that is trained on what the base selects")
    place = Workplace(options.out, options.base, options.other)
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    require_suite(place, replace(SMALL if options.small else LARGE, defects=options.defects, skewed=options.skewed))
    recipe_file = options.recipe or options.out / "recipe.json"
    if not recipe_file.exists():
        tune(place, recipe_file, options.device)
    recipe = Recipe(**json.loads(recipe_file.read_text())["recipe"])
    check_identity(place, asdict(recipe))
    seconds = score_pool(place, options.device)
    asked = options.group or (GROUPS[:1] if options.small else GROUPS)
    groups = [group for group in asked if group != "transfer" or options.other]
    told = {"recipe": asdict(recipe), "scoring_s": seconds, "n_processes": options.processes}
    write_json(options.out / "machine.json", describe_machine() | told)
    jobs = plan_jobs(groups, options.seeds, BUDGETS)[number - 1 :: n_parts]
    run_all(place, jobs, recipe, options.device, options.processes)
    write_report(place)
    print(f"{time.monotonic() - started:.0f} s in this start")


def require_suite(place: Workplace, sizes: Sizes) -> None:
    """Build the suite, or make sure that the one that is there was built like this."""
    file = place.suite / "suite.json"
    if not file.exists():
        build(place.suite, sizes)
    if (known := json.loads(file.read_text()).get("made_with")) != made_with(sizes):
        raise SystemExit(f"{place.suite} was built with {known}; give another --out")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True, help="the model that scores and is trained")
    parser.add_argument("--other", type=Path, help="a model that is trained on what the base has selected")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--small", action="store_true", help="600 rows a source, for 2 cores")
    size.add_argument("--large", action="store_true", help="1,500 rows a source, for a GPU")
    parser.add_argument("--group", nargs="+", choices=GROUPS, help="core if small, all if large")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--defects", type=float, default=0.5, help="share of the pool with a planted defect")
    parser.add_argument("--skewed", action="store_true", help="sources of very different sizes")
    parser.add_argument("--processes", type=int, default=1 if torch.cuda.is_available() else 2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--part",
        default="1/1",
        help="2/3 trains a third, in a folder that one command has scored in",
    )
    parser.add_argument(
        "--recipe", type=Path, help="recipe.json of another run; chosen on the validation split if none"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
