"""How fast rows are read, and in how much memory: `python benchmarks/reading/rows.py [--mb 60]`.

Each reader runs in a process of its own, on the same synthetic LLaVA file. ijson is compared if it is installed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

CASES = ("ascii list", "utf-8 list", "ascii lines", "one row of 15 MB")
READERS = ("iter_rows", "json.load", *(["ijson"] if find_spec("ijson") else []))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=60, help="size of the synthetic files")
    parser.add_argument("--measure", nargs=2, metavar=("READER", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], Path(options.measure[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            path = Path(folder) / ("data.jsonl" if "lines" in case else "data.json")
            write_case(case, path, options.mb)
            for reader in READERS:
                if reader == "iter_rows" or "lines" not in case:
                    report(case, reader, path)


def report(case: str, reader: str, path: Path) -> None:
    command = [sys.executable, __file__, "--measure", reader, str(path)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rate = path.stat().st_size / 1e6 / found["cpu_s"]
    print(f"{case:18} {reader:10} {rate:6.0f} MB per CPU second  {found['growth_mb']:6.0f} MB more memory at most")


def write_case(case: str, path: Path, n_mb: int) -> None:
    question, answer = "<image>\nWhat is shown in the picture? ", "A brown bear that walks through a forest. " * 12
    if case == "utf-8 list":
        answer = answer.replace("bear", "bär 熊")
    if case == "one row of 15 MB":
        answer *= 30_000
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    row = json.dumps(
        {"id": "000000033471", "image": "coco/000000033471.jpg", "conversations": turns}, ensure_ascii=False
    )
    n_rows = max(1, n_mb * 1_000_000 // len(row.encode()))
    with path.open("w", encoding="utf-8") as file:
        if "lines" in case:
            file.writelines(f"{row}\n" for _ in range(n_rows))
        else:
            file.write("[" + row)
            file.writelines(f", {row}" for _ in range(n_rows - 1))
            file.write("]")


def measure(reader: str, path: Path) -> dict[str, float]:
    rows = open_reader(reader, path)
    before_mb, started = peak_mb(), time.process_time()
    for _ in rows:
        pass
    return {"cpu_s": time.process_time() - started, "growth_mb": peak_mb() - before_mb}


def peak_mb() -> float:
    """The largest resident size so far; unlike getrusage's it doesn't count what the parent had before exec."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def open_reader(reader: str, path: Path) -> Iterable[object]:
    """Import here, so that each process has only what it measures; nothing is read before the first row is wanted."""
    if reader == "ijson":
        import ijson

        return ijson.items(path.open("rb"), "item")
    if reader == "json.load":
        return (row for _ in [0] for row in json.loads(path.read_bytes()))
    from delta_attnmask.reading.jsonfile import iter_rows

    return iter_rows(path)


if __name__ == "__main__":
    main()
