"""Hostile rows and files, driven through `check` and `score`.

    python -m benchmarks.fuzz --cases 10000 --score-rows 400 --seed 0

A case is a file of one to six rows, half of them hostile, in one of seven containers; half of the files are damaged
besides. It passes if the file is refused with an error of this package, or each row is there once, with turns or with a
reason; if it takes no more than --seconds; and if nothing asks for the network. Some files go through the command line.
Last, hostile rows among good ones are scored by the embedded model: every row must be in the table once, with finite
numbers or a reason. More memory than --check-mib before the model is loaded, or than --score-mib at the end, is a fault
as well: each is that of the whole process at its highest, or of one that it started.
"""

import argparse
import math
import os
import platform
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.fuzz.files import KINDS, encode_rows, write_file, write_images
from benchmarks.fuzz.rows import Rows
from delta_attnmask.errors import DeltaAttnMaskError
from delta_attnmask.reading.faults import generalise
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.reading.survey import survey


class TooSlow(BaseException):
    """No `except Exception` on the way swallows it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--score-rows", type=int, default=400)
    parser.add_argument("--cli-files", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=30, help="of one file, and a tenth of it of a row scored")
    parser.add_argument("--check-mib", type=int, default=1024, help="memory while nothing is scored")
    parser.add_argument("--score-mib", type=int, default=4096, help="memory with the model")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="PIL")
    attempts = block_network()
    with tempfile.TemporaryDirectory() as name:
        faults = fuzz(Path(name), options)
    print(f"network: {len(attempts)} attempts; {faults} faults")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; seed {options.seed}")
    print(f"pillow {version('pillow')}, pyarrow {version('pyarrow')}")
    sys.exit(1 if faults or attempts else 0)


def fuzz(folder: Path, options: argparse.Namespace) -> int:
    """How many faults there are."""
    write_images(folder / "images")
    faults = fuzz_check(folder, options.cases, options.seconds, options.seed)
    faults += fuzz_command(folder, options.cli_files, options.seed)
    faults += bound_memory("check", options.check_mib)
    if options.score_rows:
        faults += fuzz_score(folder, options.score_rows, options.seconds * (5 + options.score_rows // 10), options.seed)
        faults += bound_memory("score", options.score_mib)
    return faults


def bound_memory(what: str, allowed_mib: int) -> int:
    found = max(own_peak_kib(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) // 1024
    print(f"memory of {what}: {found} MiB at its highest, {allowed_mib} allowed", flush=True)
    return int(found > allowed_mib)


def own_peak_kib() -> int:
    """Of this program: what `getrusage` says of a process begins with the size of the one that started it."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])


def block_network() -> list[object]:
    attempts: list[object] = []

    def refuse(*arguments: Any, **_: Any) -> NoReturn:
        attempts.append(arguments[-1])
        raise OSError("no network here")

    for name in ("connect", "connect_ex"):
        setattr(socket.socket, name, refuse)
    socket.getaddrinfo = refuse
    return attempts


def fuzz_check(folder: Path, n_cases: int, seconds: int, seed: int) -> int:
    """How many cases fail."""
    outcomes: Counter[str] = Counter()
    slowest, faults = (0.0, "no case"), 0
    for case in range(n_cases):
        chance = random.Random(f"{seed} {case}")
        rows = draw_rows(chance)
        path = write_file(folder, chance.choice(KINDS), rows, chance, damage=case % 2 == 1)
        started = time.perf_counter()
        try:
            with limit(seconds):
                outcomes.update(check_file(path, folder / "images", len(rows) if case % 2 == 0 else None))
        except (Exception, TooSlow):  # noqa: BLE001 - that there is any other is what is looked for
            faults += 1
            print(f"case {case}, {path.suffix}:\n{traceback.format_exc()}", flush=True)
            shutil.copy(path, Path(tempfile.gettempdir()) / f"fuzz-{seed}-{case}{path.suffix}")
        slowest = max(slowest, (time.perf_counter() - started, f"case {case}, {path.suffix or 'no ending'}"))
        path.unlink()
    kinds = Counter(kind for outcome in outcomes for kind in [outcome.partition(":")[0]])
    print(f"check: {n_cases} files, {faults} faults, slowest {slowest[0]:.1f} s ({slowest[1]})")
    for name in ("files refused", "rows ok", "rows failed"):
        total = sum(count for outcome, count in outcomes.items() if outcome.startswith(name))
        print(f"  {name}: {total}, in {kinds[name]} ways", flush=True)
    return faults


def draw_rows(chance: random.Random) -> list[Any]:
    """One to six, every other one good, so that a format is recognised."""
    rows = Rows(chance)
    return [rows.good() if n % 2 == 0 else rows.draw() for n in range(chance.randrange(1, 7))]


def check_file(path: Path, images: Path, n_rows: int | None) -> Counter[str]:
    """What came of each row; AssertionError-free: raises RuntimeError where a row is lost or doubled."""
    try:
        dataset = FileRows(path, images)
        found = survey(dataset)
        records = list(dataset.records(0, dataset.n_rows))
    except DeltaAttnMaskError as error:
        return Counter([f"files refused: {generalise(str(error).replace(str(path), ''))[:60]}"])
    if [record.row for record in records] != list(range(found.n_rows)):
        raise RuntimeError("rows are lost or doubled")
    if n_rows is not None and found.n_rows != n_rows:
        raise RuntimeError(f"{found.n_rows} rows instead of {n_rows}")
    if not all(bool(record.turns) != bool(record.reason) for record in records):
        raise RuntimeError("a row with neither turns nor a reason")
    told = Counter({f"rows failed: {kind[:60]}": fault.n_rows for kind, fault in found.faults.items()})
    return told + Counter({"rows ok": found.n_ok})


def fuzz_command(folder: Path, n_files: int, seed: int) -> int:
    """`delta-attnmask check` on damaged files; it must end with 0 or 2, and no traceback."""
    faults = 0
    for case in range(n_files):
        chance = random.Random(f"{seed} command {case}")
        path = write_file(folder, KINDS[case % len(KINDS)], draw_rows(chance), chance, damage=case % 3 > 0)
        command = [sys.executable, "-m", "delta_attnmask", "check", "--data", path, "--images", folder / "images"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if ended.returncode not in {0, 2} or "Traceback" in ended.stderr:
            faults += 1
            print(f"command {case}: {ended.returncode}\n{ended.stderr}", flush=True)
        path.unlink()
    print(f"command line: {n_files} files, {faults} faults", flush=True)
    return faults


def fuzz_score(folder: Path, n_rows: int, seconds: int, seed: int) -> int:
    """Score hostile rows among good ones with the embedded model; how many rows are missing, doubled or neither."""
    from delta_attnmask.embedded import export
    from delta_attnmask.modeling.load import load_model
    from delta_attnmask.scoring.jobs import score_dataset
    from delta_attnmask.scoring.units import ScoringPlan
    from delta_attnmask.settings import MaskSettings

    chance = random.Random(f"{seed} score")
    rows = [Rows(chance).good() if n % 2 == 0 else Rows(chance).draw() for n in range(n_rows)]
    path = folder / "rows.jsonl"
    path.write_bytes(encode_rows(folder, "JSONL", rows, chance))
    loaded = load_model(str(export(folder / "embedded") / "model"), dtype="float32", device="cpu")
    started = time.perf_counter()
    try:
        with limit(seconds):
            dataset = FileRows(path, folder / "images", format="llava")
            run = score_dataset(loaded, dataset, folder / "run", ScoringPlan(MaskSettings.paper()))
    except TooSlow:
        print(f"score: {n_rows} rows took more than {seconds} s", flush=True)
        return 1
    scores = run.read_scores().to_pylist()
    ok = [score for score in scores if score["status"] == "ok"]
    faults = int([score["row"] for score in scores] != list(range(n_rows)))
    faults += sum(not math.isfinite(score["delta"]) for score in ok)
    faults += sum(not score["reason"] for score in scores if score["status"] != "ok")
    print(
        f"score: {n_rows} rows in {time.perf_counter() - started:.0f} s: {len(ok)} ok, {n_rows - len(ok)} failed with"
    )
    told = Counter(generalise(score["reason"])[:90] for score in scores if score["status"] != "ok")
    print("\n".join(f"  {count:4} {kind}" for kind, count in told.most_common()), flush=True)
    return faults


@contextmanager
def limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> NoReturn:
        raise TooSlow

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    main()
