"""Let threads that wait for each other give their core away soon.

Threads of one matrix product wait for the slowest of them. libgomp, which torch computes with on Linux, lets them spin
for milliseconds, which is good alone; but where another program has one of the cores, the thread that is waited for is
the one that can't run. Two shards of a run on the same two cores took four to eight times as long as one process for
all of it, and hardly longer with short spinning, which costs a process alone nothing (docs/performance.md).
"""

import os
import sys

_N_SPINS = 1000  # as libgomp itself does where one process has more threads than cores
_SET_BY_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def wait_briefly() -> bool:
    """Tell libgomp so, for this process and those that it starts; whether it did.

    It reads its settings once, as torch is imported; after that, and where the user has set them, nothing is changed.
    Elsewhere the setting has no effect.
    """
    if "torch" in sys.modules or any(name in os.environ for name in _SET_BY_USER):
        return False
    os.environ["GOMP_SPINCOUNT"] = str(_N_SPINS)
    return True
