"""Files that are whole or not there, and locks among the processes that write them. No torch here."""

import errno
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from delta_attnmask.errors import ArtifactError

TEMPORARY = ".tmp"
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def write_atomically(path: Path, tag: str = "") -> Iterator[BinaryIO]:
    """Write aside in the same folder, sync, and rename into place; after a failure nothing is left.

    tag: goes into the name of what is written aside, for `remove_stale`.
    Raises ArtifactError where the system refuses, as with a full disk.
    """
    aside = _aside(path, tag)
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


def write_text_atomically(path: Path, text: str, tag: str = "") -> None:
    with write_atomically(path, tag) as file:
        file.write(text.encode())


def create_text(path: Path, text: str, tag: str = "") -> bool:
    """Write a file unless it is there; of several processes that try, exactly one is told True.

    A hard link decides, which also holds on NFS. On a file system without links a later writer may replace an earlier
    one, so whoever depends on the content must read it back.
    """
    whole = _aside(path, tag)
    try:
        write_text_atomically(whole, text, tag)
        try:
            os.link(whole, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise ArtifactError(f"{path} can't be written: {error.strerror}") from error
            if path.exists():
                return False
            whole.replace(path)
        _sync_folder(path.parent)
        return True
    finally:
        with suppress(OSError):
            whole.unlink()


def remove_stale(folder: Path, tag: str = "") -> None:
    """Remove what killed processes left half-written in a folder and those below it.

    tag: only what was written with this tag; empty for everything, which only who is alone in the folder may remove.
    """
    pattern = f".*{tag}.????????{TEMPORARY}" if tag else f".*{TEMPORARY}"
    for aside in [*folder.glob(pattern), *folder.glob(f"*/{pattern}")]:
        aside.unlink(missing_ok=True)


def _aside(path: Path, tag: str) -> Path:
    return path.with_name(f".{path.name}{tag}.{secrets.token_hex(4)}{TEMPORARY}")


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def hold_folder(path: Path) -> Iterator[None]:
    """Make a folder if it is missing, and hold its lock; ArtifactError where it can't be made or is in use."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"folder {path} can't be made: {error.strerror}") from error
    with hold_lock(path / "lock"):
        yield


def refuse_other_files(path: Path, kind: str) -> None:
    """Raise ArtifactError where a folder holds more than a process leaves that was killed before its first file.

    kind: what the folder should hold, for the message.
    """
    for entry in path.iterdir():
        if entry.name != "lock" and not entry.name.endswith(TEMPORARY):
            raise ArtifactError(f"{path} isn't empty and holds no {kind} (it has {entry.name!r}); choose another")


@contextmanager
def hold_lock(path: Path, *, shared: bool = False) -> Iterator[bool]:
    """Hold a lock file; the kernel releases it when the process ends, however it ends.

    shared: any number of processes may hold it so, and none exclusively meanwhile.
    Yields False where the file system has no locks. Raises ArtifactError where another process is in the way.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ArtifactError(f"run folder {path.parent} can't be written: {error.strerror}") from error
    try:
        is_held = _lock(handle, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield is_held
    finally:
        os.close(handle)


def _lock(handle: int, path: Path, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
        raise ArtifactError(f"{path.parent} is in use by {holder}; wait for it, or stop it and start again") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise ArtifactError(f"{path} can't be locked: {error.strerror}") from error
        return False
    return True
