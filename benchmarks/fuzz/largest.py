"""The memory that rows at the limits of images take in an image processor: python -m benchmarks.fuzz.largest

Each case runs in a process of its own; told is what the process had at its highest above what it had before it.
"""

import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

from PIL import Image
from transformers import CLIPImageProcessor, Idefics3ImageProcessor, LlavaImageProcessor

from delta_attnmask.encoding.processing import Enlargement
from delta_attnmask.errors import RowError


class Case(NamedTuple):
    name: str
    processor: type[Any]
    options: dict[str, Any]
    size: tuple[int, int]
    n_images: int


_CLIP = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
_TILES = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}
CASES = (
    Case("CLIP at 336", CLIPImageProcessor, _CLIP, (1, 1700), 1),
    Case("CLIP at 336", CLIPImageProcessor, _CLIP, (1, 44), 40),
    Case("CLIP at 336", CLIPImageProcessor, _CLIP, (1, 1), 880),
    Case("CLIP at 336", CLIPImageProcessor, _CLIP, (7000, 7000), 4),
    Case("LLaVA, padding", LlavaImageProcessor, _CLIP | {"do_pad": True}, (200, 14_000), 1),
    Case("Idefics3 at 2048", Idefics3ImageProcessor, _TILES, (1, 1), 22),
    Case("CLIP at 336", CLIPImageProcessor, _CLIP, (1, 10_000), 1),
    Case("Idefics3 at 2048", Idefics3ImageProcessor, _TILES, (1, 1), 1000),
)


def main() -> None:
    print("| processor | images | seconds | MiB added |\n| --- | --- | ---: | ---: |")
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for case, found in zip(CASES, pool.map(measure, CASES), strict=True):
            width, height = case.size
            print(f"| {case.name} | {case.n_images} of {width}x{height} | {found} |", flush=True)


def measure(case: Case) -> str:
    """Seconds and MiB, or why the row is refused, as cells of the table."""
    processor = case.processor(**case.options)
    processor([[Image.new("RGB", (9, 9))]], return_tensors="pt")
    images = [Image.new("RGB", case.size)] * case.n_images
    before, started = peak_mib(), time.perf_counter()
    try:
        Enlargement(processor, lambda image: processor([[image]], return_tensors="pt")).refuse(images)
        processor([images], return_tensors="pt")
    except RowError:
        return f"refused in {time.perf_counter() - started:.1f} | {peak_mib() - before}"
    return f"{time.perf_counter() - started:.1f} | {peak_mib() - before}"


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
