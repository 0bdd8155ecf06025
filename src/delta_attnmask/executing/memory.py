"""Keep the memory that one batch frees for the next one, instead of giving it back and asking for it again.

A forward on a CPU makes and frees hundreds of tensors of some megabytes. glibc gives the top of its heap back as soon
as 128 KiB of it are free, or more once larger blocks have been freed, and the kernel fills each page with zeros when
it is asked for again: a quarter of a small model's forward went into that (docs/performance.md).
"""

import ctypes
import os
import sys

# Options of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_KEPT = 256 << 20  # bytes at the top of the heap that stay with the process
_LARGEST = 32 << 20  # bytes; what is larger is mapped by itself, and goes back when it is freed


def keep_freed_memory() -> bool:
    """Tell the C library's allocator so, for this process; whether it did.

    Only glibc on Linux knows the options; elsewhere, and where the user has set the allocator, nothing is changed.
    """
    is_set_by_user = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    if sys.platform != "linux" or is_set_by_user:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT))
