"""Compare scoring with a plain forward and the naive reference.

python -m benchmarks.scoring --small
python -m benchmarks.scoring --device cuda --models qwen2-vl-2b,llava-1.5-7b --compile --json out.json

`python -m benchmarks.gpu` holds the same, and what else only a GPU shows, against goals.
"""

import argparse
import json
from pathlib import Path

import torch
import transformers

from benchmarks.scoring import report
from benchmarks.scoring.measure import matrix_rate
from benchmarks.scoring.models import SUBJECTS
from benchmarks.scoring.runs import Plan, Result, results

SMALL = ["small-llava", "small-qwen2-vl"]


def main() -> None:
    options = _options()
    device = torch.device(options.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if options.threads:
        torch.set_num_threads(options.threads)
    names = SMALL if options.small else options.models.split(",")
    sizes = tuple(int(size) for size in options.batch_sizes.split(","))
    plan = Plan(sizes, device, dtype, options.budget_s, options.compile)
    machine, rate = report.machine(device), matrix_rate(device, dtype)
    print(f"{machine} matrix product {rate / 1e12:.2f} TFLOP/s in {dtype}")
    found: list[Result] = []
    for name in names:
        found += results(SUBJECTS[name], plan)
        table = report.rows(found, rate)
        print(report.markdown(table), flush=True)
        if options.json:
            Path(options.json).write_text(
                json.dumps({"machine": machine, "matrix_rate": rate, "rows": table}, indent=1)
            )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", default="qwen2-vl-2b", help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--small", action="store_true", help=f"the models for a CPU: {', '.join(SMALL)}")
    parser.add_argument("--batch-sizes", default="1,8,32")
    parser.add_argument("--compile", action="store_true", help="also time compiled blocks")
    parser.add_argument("--budget-s", type=float, default=5.0, help="timed seconds for each model and batch size")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--json", help="write all numbers to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
