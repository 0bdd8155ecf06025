"""Threads wait briefly for each other: told before torch is there, unless the user has told otherwise."""

import os
import subprocess
import sys

import pytest

from delta_attnmask.executing.process import wait_briefly

# The command line, ended before it does anything, and what the C library then gives libgomp to read.
_TOLD = """
import ctypes, sys
from contextlib import suppress
from delta_attnmask.cli import main
assert "torch" not in sys.modules
with suppress(SystemExit):
    main(["--version"])
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
print((getenv(b"GOMP_SPINCOUNT") or b"unset").decode())
"""


def _told(**settings: str) -> str:
    kept = {name: text for name, text in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    command = [sys.executable, "-c", _TOLD]
    found = subprocess.run(command, env=kept | settings, capture_output=True, text=True, check=True)
    return found.stdout.split()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux's")
def test_commands_tell_libgomp() -> None:
    assert _told() == "1000"


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux's")
def test_the_users_settings_stand() -> None:
    assert _told(GOMP_SPINCOUNT="7") == "7"
    assert _told(OMP_WAIT_POLICY="active") == "unset"


def test_nothing_is_told_when_it_is_too_late() -> None:
    import torch  # noqa: F401

    before = dict(os.environ)
    assert not wait_briefly()
    assert os.environ == before
