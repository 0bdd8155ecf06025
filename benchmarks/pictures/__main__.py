"""Takes every screenshot of the documentation again: `python -m benchmarks.pictures --demo demo-run --out docs/images`.

demo-run is what `delta-attnmask demo --out demo-run` has made. Needs the extra `train`, Playwright, and
Debian's chromium; takes about five minutes on two CPU cores, most of them for tuning a model and measuring its
attention. With `--all` it also takes those that no page of the documentation shows: dark ones, and more on a phone.
"""

import argparse
from pathlib import Path

from benchmarks.pictures.pages import make_pages, pages_in
from benchmarks.pictures.scenes import ATTENTION, INSPECTOR, REPORT, REVIEW
from benchmarks.pictures.shots import open_browser, take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, required=True, help="folder of `delta-attnmask demo --out`")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--all", action="store_true", help="also the pictures that nothing links to")
    parser.add_argument("--only", default="", help="only the pictures whose names begin so")
    parser.add_argument("--as-they-are", action="store_true", help="photograph the pages of the last call again")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pages = pages_in(options.demo) if options.as_they_are else make_pages(options.demo)
    files = {
        pages.report: REPORT,
        pages.inspector: INSPECTOR,
        pages.attention: ATTENTION,
        pages.review: REVIEW,
    }
    with open_browser() as browser:
        for file, shots in files.items():
            address = file.resolve().as_uri()
            for shot in shots:
                if shot.name.startswith(options.only) and (shot.is_linked or options.all):
                    path = take(browser, address, shot, options.out)
                    print(f"{path}  {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
