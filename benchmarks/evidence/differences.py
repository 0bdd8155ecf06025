"""Differences of exact match between any two methods of a finished run, from its CSV: nothing is trained.

    python -m benchmarks.evidence.differences benchmarks/evidence/small-all.csv --suite SUITE oracle none full random

SUITE is the suite's folder (`python -m benchmarks.suite`), whose test rows tell which source each outcome is of. Each
following pair is told with its 95 % interval over test rows and seeds, at 20 % of the pool ("full" and "none" apart).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .jobs import read_lines
from .report import signed
from .results import Results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("methods", nargs="+", help="pairs: the one, and what is taken away from it")
    options = parser.parse_args()
    if len(options.methods) % 2:
        parser.error("methods: expected pairs")
    test = json.loads((options.suite / "test.json").read_text())
    results = Results(read_lines(options.csv), [entry["source"] for entry in test])
    for ours, other in zip(options.methods[::2], options.methods[1::2], strict=True):
        print(f"{ours} minus {other}: {signed(results.difference(ours, other))}")


if __name__ == "__main__":
    main()
