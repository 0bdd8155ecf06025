"""Disks that are full or read-only, clocks that are set back, two starts at once: the table at the end is the same."""

import ctypes
import os
import re
import resource
import shutil
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from delta_attnmask import cli
from tests.test_kill import begin, begin_call, command, finish, tables, told, wait_for_units
from tests.test_kill import whole as whole  # the fixture

_CANT_UNSHARE = 77
_NEW_USER, _NEW_MOUNTS, _REMOUNT = 0x10000000, 0x00020000, 32
_OVERRIDES = 0b110  # the capabilities CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root may write anywhere


def fails(log: Path, arguments: list[str], *before: Callable[[], None]) -> str:
    """Start the command and give the one line with which it ends, having exited with 2."""
    assert finish(begin_call(told, log, arguments, *before)) == 2
    text = log.read_text()
    assert "Traceback" not in text
    return text.splitlines()[-1]


# A full disk


def limit_files(n_bytes: int) -> None:
    # The log is a file too: what is said before the fault must fit.
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def test_no_file_may_grow(embedded: Path, whole: dict[str, pa.Table], tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    for n_bytes, file in ((1000, "manifest.json"), (3000, "unit-00000.parquet")):
        message = fails(log, command(embedded, out), partial(limit_files, n_bytes))
        assert file in message
        assert "can't be written: File too large" in message
        assert not [path for path in out.rglob("*") if path.name.endswith(".tmp")]
    assert finish(begin(command(embedded, out))) == 0
    assert tables(out) == {"scores": whole["scores"]}


def mount_tmpfs(folder: Path, size: str, flags: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", os.fsencode(folder), b"tmpfs", flags, f"size={size}".encode()) != 0:
        os._exit(_CANT_UNSHARE)


def score_on_small_disk(folder: Path, copy: Path, log: Path, arguments: list[str]) -> None:
    """What a child does: score onto a disk of its own until it is full, enlarge it, score again, copy the run out."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS if os.getuid() == 0 else _NEW_USER | _NEW_MOUNTS) != 0:
        os._exit(_CANT_UNSHARE)
    mount_tmpfs(folder, "80k")
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
    with pytest.raises(SystemExit) as first:
        cli.main(arguments)
    assert first.value.code == 2
    shutil.copytree(folder / "run", copy / "full")
    mount_tmpfs(folder, "80m", _REMOUNT)
    with pytest.raises(SystemExit) as second:
        cli.main(arguments)
    assert second.value.code == 0
    shutil.copytree(folder / "run", copy / "run")


def test_a_disk_that_fills_up_in_the_middle(embedded: Path, whole: dict[str, pa.Table], tmp_path: Path) -> None:
    disk, copy, log = tmp_path / "disk", tmp_path / "copy", tmp_path / "log"
    disk.mkdir()
    child = begin_call(score_on_small_disk, disk, copy, log, command(embedded, disk / "run", "--embeddings"))
    if (code := finish(child)) == _CANT_UNSHARE:
        pytest.skip("this system lets no process mount a disk of its own")
    assert code == 0
    assert "No space left on device" in log.read_text()
    n_in_time = len(list((copy / "full" / "scores").iterdir()))
    assert 0 < n_in_time < 10
    assert tables(copy / "run") == whole


# A folder that may not be written


def respect_permissions() -> None:
    """Give up root's right to write anywhere, for this process; without effect for others."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    data[0] &= ~_OVERRIDES
    assert libc.capset(header, data) == 0


def test_a_folder_that_becomes_read_only(embedded: Path, whole: dict[str, pa.Table], tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    killed = begin(command(embedded, out))
    wait_for_units(out, 2)
    killed.kill()
    finish(killed)
    (out / "lock").unlink()  # a new one must be made
    for folder in (".", "scores"):
        (out / folder).chmod(0o555)
        try:
            message = fails(log, command(embedded, out), respect_permissions)
        finally:
            (out / folder).chmod(0o755)
        assert re.search("can't be (written|locked): Permission denied", message)
    assert finish(begin(command(embedded, out))) == 0
    assert tables(out) == {"scores": whole["scores"]}


# Clocks, and two at once


def set_clock_back() -> None:
    """As if it were a year ago, for all that asks Python."""
    from delta_attnmask import manifest

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Earlier":
            return cls(2020, 1, 1, tzinfo=tz or UTC)

    now = time.time
    time.time = lambda: now() - 3e7
    time.time_ns = lambda: int((now() - 3e7) * 1e9)
    manifest.datetime = Earlier  # type: ignore[misc]


def test_a_clock_that_was_set_back(embedded: Path, whole: dict[str, pa.Table], tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    killed = begin(command(embedded, out))
    wait_for_units(out, 2)
    killed.kill()
    finish(killed)
    for file in out.rglob("*"):
        os.utime(file, (time.time() + 3e7,) * 2)
    before = {path: path.stat().st_mtime_ns for path in (out / "scores").glob("unit-*")}
    assert finish(begin_call(told, log, command(embedded, out), set_clock_back)) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert tables(out) == {"scores": whole["scores"]}


def test_the_second_of_two_starts_is_refused(embedded: Path, whole: dict[str, pa.Table], tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    first = begin(command(embedded, out))
    wait_for_units(out, 1)
    os.kill(first.pid, signal.SIGSTOP)  # SIGSTOP: it holds the folder for as long as the test needs
    try:
        assert f"is in use by process {first.pid} on " in fails(log, command(embedded, out))
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert finish(first) == 0
    assert tables(out) == {"scores": whole["scores"]}
