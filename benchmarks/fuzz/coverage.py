"""Bytes that atheris changes by what code they reach, read as data files of four endings.

    python3.11 -m venv atheris && atheris/bin/pip install atheris
    PYTHONPATH=src:.venv/lib/python3.11/site-packages:. atheris/bin/python -m benchmarks.fuzz.coverage CORPUS \
        -max_total_time=300 -timeout=30 -rss_limit_mb=2048 -max_len=65536

CORPUS is a folder, filled with a file of each container if it is empty. An input's first byte chooses the ending, the
rest is the file, which `check` reads whole. What passes is as in `benchmarks.fuzz`: an error of this package, or every
row once. Anything else that is raised, 30 seconds, or 2 GiB end the run; the input is then left beside it. pyarrow and
pillow are machine code that isn't traced: only this package's own Python guides the changes.
"""

import random
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["delta_attnmask"]):
    from benchmarks.fuzz.files import KINDS, encode_rows, write_images
    from benchmarks.fuzz.rows import Rows
    from delta_attnmask.errors import DeltaAttnMaskError
    from delta_attnmask.reading.rows import FileRows
    from delta_attnmask.reading.survey import survey

    for module in ("columns", "jsonfile", "tars"):  # imported when a file asks for them: too late
        import_module(f"delta_attnmask.reading.{module}")

ENDINGS = (".json", ".jsonl", ".tar", ".parquet")


def main() -> None:
    warnings.filterwarnings("ignore", module="PIL")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images")
        for corpus in (Path(text) for text in sys.argv[1:] if not text.startswith("-")):
            if corpus.is_dir() and not any(corpus.iterdir()):
                write_corpus(corpus, folder)
        atheris.Setup(sys.argv, reader(folder))
        atheris.Fuzz()


def write_corpus(corpus: Path, folder: Path) -> None:
    """A file of every container under every ending."""
    for kind in KINDS:
        rows = [Rows(random.Random(n)).good_with_image() for n in range(3)]
        data = encode_rows(folder, kind, rows, random.Random(0))
        for number, ending in enumerate(ENDINGS):
            (corpus / f"{kind.replace(' ', '-')}{ending}").write_bytes(bytes([number]) + data)


def reader(folder: Path) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        if data:
            path = folder / f"case{ENDINGS[data[0] % len(ENDINGS)]}"
            path.write_bytes(data[1:])
            check(path, folder / "images")

    return read


def check(path: Path, images: Path) -> None:
    try:
        dataset = FileRows(path, images)
        n_rows = survey(dataset).n_rows
    except DeltaAttnMaskError:
        return
    if n_rows != dataset.n_rows:
        raise RuntimeError(f"{n_rows} rows instead of {dataset.n_rows}")


if __name__ == "__main__":
    main()
