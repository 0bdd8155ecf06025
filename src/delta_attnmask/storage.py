"""Files that are whole or not there, and locks among the processes that write them. No torch here."""

import errno
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from delta_attnmask.errors import ArtifactError

TEMPORARY = ".tmp"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def write_atomically(path: Path, tag: str = "") -> Iterator[BinaryIO]:
    """Write aside in the same folder, sync, and rename into place; after a failure nothing is left.

    tag: goes into the name of what is written aside, for `remove_stale`.
    Raises ArtifactError where the system refuses, as with a full disk.
    """
    aside = path.with_name(f".{path.name}{tag}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ArtifactError(f"{path} can't be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            aside.unlink()


def write_text_atomically(path: Path, text: str) -> None:
    with write_atomically(path) as file:
        file.write(text.encode())


def remove_stale(folder: Path, tag: str = "") -> None:
    """Remove what killed processes left half-written in a folder and its subfolders.

    tag: only what was written with this tag; empty for everything, which only a process that is alone may remove.
    """
    pattern = f".*{tag}.????????{TEMPORARY}" if tag else f".*{TEMPORARY}"
    for aside in [*folder.glob(pattern), *folder.glob(f"*/{pattern}")]:
        aside.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def hold_lock(path: Path, wait_s: float = 0) -> Iterator[bool]:
    """Hold a lock file alone, in a folder that is made if it is missing; it is released however the process ends.

    Yields False where the file system has no locks. Raises ArtifactError, naming the holder, where another process
    keeps it for longer than `wait_s`.
    """
    lock = FileLock(path, timeout=wait_s, thread_local=False, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        with suppress(OSError):
            holder = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
        raise ArtifactError(f"{path.parent} is in use by {holder}; wait for it, or stop it and start again") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise ArtifactError(f"{path} can't be locked: {error.strerror}") from error
    try:
        with suppress(OSError):
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield lock.is_locked
    finally:
        lock.release()
