"""What a process frees stays with it, unless the user has set the allocator."""

import os
import platform
import subprocess
import sys

import pytest

from delta_attnmask.executing.process import keep_freed_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library isn't glibc")

# Prints how many MiB of 96 that were freed are still with the process.
_MEASURE = """
import sys
from delta_attnmask.executing.process import keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

if "keep" in sys.argv:
    assert keep_freed_memory()
before = resident()
buffers = [bytearray(b"x") * (6 << 20) for _ in range(16)]
assert resident() - before > 90
del buffers
print(round(resident() - before))
"""


def _measure(*arguments: str) -> int:
    unset = {name: text for name, text in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", _MEASURE, *arguments]
    return int(subprocess.run(command, env=unset, capture_output=True, text=True, check=True).stdout)


def test_freed_memory_stays() -> None:
    assert _measure() < 48
    assert _measure("keep") > 80


@pytest.mark.parametrize(
    ("name", "text"), [("MALLOC_ARENA_MAX", "1"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1")]
)
def test_the_users_settings_stand(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    assert not keep_freed_memory()


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert not keep_freed_memory()
