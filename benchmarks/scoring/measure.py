"""Time, memory, arithmetic: what one call costs."""

import gc
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Call = Callable[[], Any]
_MATRIX = {"cuda": 8192, "cpu": 1024}


@dataclass(frozen=True)
class Cost:
    """seconds: of each repeat. peak_bytes: of GPU memory, with the model; 0 on a CPU. failure: why there are none."""

    seconds: tuple[float, ...] = ()
    peak_bytes: int = 0
    failure: str = ""

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds) if self.seconds else float("nan")

    @property
    def spread(self) -> float:
        """The middle half of the repeats, relative to the median."""
        if len(self.seconds) < 4:
            return float("nan")
        first, _, third = statistics.quantiles(self.seconds, n=4)
        return (third - first) / self.median_s


def costs(calls: dict[str, Call], device: torch.device, budget_s: float, max_rounds: int = 20) -> dict[str, Cost]:
    """Time all calls in turn, round after round, so that a change of the machine's state meets each of them.

    budget_s: for the rounds of all calls together, after one warm-up of each; at least three rounds.
    """
    peaks: dict[str, int] = {}
    failures: dict[str, str] = {}
    for name, call in calls.items():
        try:
            call()  # compiles, checks, allocates
            peaks[name] = _peak_bytes(call, device)
        except torch.OutOfMemoryError:
            failures[name] = "out of memory"
        _free(device)
    times: dict[str, list[float]] = {name: [] for name in peaks}
    begin = time.perf_counter()
    while _goes_on(times.values(), time.perf_counter() - begin, budget_s, max_rounds):
        for name, seconds in times.items():
            seconds.append(_seconds(calls[name], device))
    return {name: Cost(tuple(times.get(name, ())), peaks.get(name, 0), failures.get(name, "")) for name in calls}


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP a second of a large matrix product of random numbers: what the machine can do."""
    size = _MATRIX[device.type]
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        left @ right
    seconds = statistics.median(_seconds(lambda: left @ right, device) for _ in range(10))
    return float(2 * size**3 / seconds)


def flops(call: Call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def _goes_on(times: Iterable[list[float]], elapsed_s: float, budget_s: float, max_rounds: int) -> bool:
    n_rounds = max((len(seconds) for seconds in times), default=max_rounds)
    return n_rounds < 3 or (elapsed_s < budget_s and n_rounds < max_rounds)


def _seconds(call: Call, device: torch.device) -> float:
    """Elapsed on a GPU; on a CPU the processor's time, which other programs don't lengthen, over its threads."""
    if device.type == "cpu":
        begin = time.process_time()
        call()
        return (time.process_time() - begin) / torch.get_num_threads()
    synchronize(device)
    begin = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - begin


def _peak_bytes(call: Call, device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return torch.cuda.max_memory_allocated(device)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
