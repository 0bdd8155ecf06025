"""Files that are whole or not there, that replace nothing foreign, and locks among their writers. No torch here."""

import errno
import json
import os
import re
import secrets
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from delta_attnmask.errors import ArtifactError, SettingsError

TEMPORARY = ".tmp"
_MARK = re.compile(rb"generator[^\n]{0,12}delta-attnmask")  # in the head of pages, JSON and configurations
_HEAD_BYTES = 4096
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


def claim_output(
    path: Path,
    endings: Sequence[str],
    inputs: Iterable[Path | None] = (),
    *,
    force: bool = False,
    is_ours: bool = False,
) -> None:
    """Raise SettingsError unless a command may write this file: it is new, or this tool wrote what it replaces.

    endings: of which its name must have one. inputs: files and folders that are read: no file of them is ever replaced,
    under whatever name.
    force: replace any other file too. is_ours: the caller knows that this tool wrote it; else a mark in the file says.
    """
    if path.suffix.lower() not in endings:
        raise SettingsError(f"{path}: expected a name that ends in {' or '.join(dict.fromkeys(endings))}")
    try:
        if not os.path.lexists(path):
            return
        if path.exists() and not path.is_file():
            raise SettingsError(f"{path} is {'a folder' if path.is_dir() else 'no regular file'}; expected a file")
        read = [one for one in inputs if one is not None and one.exists()]
        if path.exists() and any(path.samefile(one) for one in read):
            raise SettingsError(f"{path} is the data itself, which is never replaced; choose another file")
        if is_ours or is_marked(path):
            return
        if any(path.resolve().is_relative_to(one.resolve()) for one in read if one.is_dir()):
            raise SettingsError(f"{path} belongs to what is read, which is never replaced; choose another file")
    except OSError as error:
        raise SettingsError(f"{path} can't be examined: {error.strerror or error}; choose another file") from error
    if not force:
        raise SettingsError(
            f"{path} exists, and this tool didn't write it; choose another file, or replace it with --force"
        )


def is_marked(path: Path) -> bool:
    """Whether the head of a file says that this tool generated it."""
    if not path.is_file():  # also a link to nowhere
        return False
    with path.open("rb") as file:
        return _MARK.search(file.read(_HEAD_BYTES)) is not None


def write_text_atomically(path: Path, text: str) -> None:
    with write_atomically(path) as file:
        file.write(text.encode())


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where there is no such file, as beside a model from the hub."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} can't be read: {error}") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path}: expected a JSON object")
    return found


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
    """Hold a lock file alone, in a folder that is created if missing; it is released however the process ends.

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
