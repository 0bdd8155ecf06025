"""Measure scoring on this machine's GPU against its goals: three parts of at most ten minutes each, without a network.

    python -m benchmarks.gpu --part 1      # exact; waiting, new shapes, growing memory, memory that runs out
    python -m benchmarks.gpu --part 2      # time and memory beside plain forwards, compiled, naive; a sweep
    python -m benchmarks.gpu --part 3      # from file to file: how long the GPU waits

All models have random weights of published sizes. What is found is written to one JSON file as it comes; each part adds
to it and prints the table of all. --tiny runs the same on tiny models, on a CPU in seconds; its figures mean nothing.
"""

import argparse
import sys
from pathlib import Path

import torch
import transformers

from benchmarks.gpu import exact, files, speed
from benchmarks.gpu.findings import Findings, Place
from benchmarks.scoring.models import SUBJECTS
from benchmarks.scoring.report import machine

PARTS = {1: exact.STEPS, 2: speed.STEPS, 3: files.STEPS}
MODELS = ["qwen2-vl-2b", "qwen2-vl-7b", "llava-1.5-7b", "gemma-3-4b"]
TINY = ["tiny-qwen2-vl", "tiny-llava", "tiny-gemma-3"]


def main(arguments: list[str] | None = None) -> int:
    """Run one part; 0 where all its goals are met."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", type=int, choices=PARTS, required=True)
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, metavar="NAME", help=f"by default {' '.join(MODELS)}")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which no further step begins")
    given = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not given.tiny:
        parser.error("this machine has no NVIDIA GPU; --tiny tries the same on a CPU")
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    findings = Findings(given.json, f"part {given.part}", given.minutes * 60)
    findings.note("machine", machine(device))
    names = given.models or (TINY if given.tiny else MODELS)
    for step in PARTS[given.part]:
        for name in names[:1] if step.is_done_once else names:
            findings.run(f"{step.name}, {name}", step.function, Place(device, name, given.tiny))
    print(findings.table())
    return 0 if findings.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
