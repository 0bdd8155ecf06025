"""Settings of this process that torch on a CPU is faster with: what freed memory and waiting threads do.

A forward on a CPU makes and frees hundreds of tensors of some megabytes; glibc gives their memory back each time, and
the kernel fills each page with zeros when it is asked for again: a quarter of a small model's forward.

Threads of one matrix product wait for the slowest of them. libgomp lets them spin for milliseconds; where another
program has one of the cores, the thread that is waited for is the one that can't run.
Figures: benchmarks/scoring/RESULTS.md.
"""

import ctypes
import os
import sys

# Options of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_KEPT = 256 << 20  # bytes at the top of the heap that stay with the process
_LARGEST = 32 << 20  # bytes; what is larger is mapped by itself, and goes back when it is freed

_N_SPINS = 1000  # as libgomp itself does where one process has more threads than cores
_SPINS_SET_BY_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def keep_freed_memory() -> bool:
    """Keep the memory that one batch frees for the next one; whether the C library's allocator was set so.

    Only glibc on Linux knows the options; elsewhere, and where the user has set the allocator, nothing is changed.
    """
    is_set_by_user = any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ
    mallopt = None if sys.platform != "linux" or is_set_by_user else getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT))


def wait_briefly() -> bool:
    """Let threads that wait for each other give their core away soon; whether libgomp was set so.

    It holds for this process and those that it starts. libgomp reads its settings once, as torch is imported; after
    that, and where the user has set them, nothing is changed. Elsewhere the setting has no effect.
    """
    if "torch" in sys.modules or any(name in os.environ for name in _SPINS_SET_BY_USER):
        return False
    os.environ["GOMP_SPINCOUNT"] = str(_N_SPINS)
    return True
