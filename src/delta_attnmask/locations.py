"""Paths and URLs: files and folders on this machine, and by fsspec elsewhere (`s3://…`, `gs://…`). No torch here.

Nothing is reached unless a path that the user gave is a URL; what rows say never is one.
"""

import os
import posixpath
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import IO

from delta_attnmask.errors import ArtifactError, DataError
from delta_attnmask.storage import hold_lock, write_atomically

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])")  # one slash: as a URL looks that was made a Path
_FILE = re.compile(r"file:/{1,3}")


def as_url(location: str | Path) -> str | None:
    """The URL that a location is; None for a path on this machine, `file://` included."""
    text = str(location)
    match = _URL.match(text)
    return None if match is None or match[1] == "file" else f"{match[1]}://{text[match.end() :]}"


def as_path(location: str | Path) -> Path:
    """A location on this machine as a path; `file:///x` is `/x`."""
    text = str(location)
    match = _FILE.match(text)
    return Path(location) if match is None else Path("/" + text[match.end() :])


class FileStore:
    """The files of a folder: on this machine, or by fsspec in an object store or on a file server.

    Names are relative, such as `scores/unit-00000.parquet`. A file is put in place as a whole, in one step.
    Raises ArtifactError, with what the file system says, where it refuses.

    location: as the user names it. is_local: on this machine, where there are locks.
    """

    def __init__(self, location: str | Path) -> None:
        import fsspec

        url = as_url(location)
        self.is_local = url is None
        self.location = str(as_path(location)) if url is None else url.rstrip("/")
        with _plain_errors(self.location):
            if url is None:
                base, root = fsspec.filesystem("file"), os.path.abspath(self.location)  # noqa: PTH100 - links stay
            else:
                base, root = fsspec.url_to_fs(self.location)
            self.filesystem = fsspec.filesystem("dir", fs=base, path=root)

    def __str__(self) -> str:
        return self.location

    @cached_property
    def path(self) -> Path:
        """The folder; for one at a URL a copy of its JSON files, which is removed together with this object."""
        if self.is_local:
            return Path(self.location)
        folder = Path(tempfile.mkdtemp(prefix="delta-attnmask-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        for name in self.names():
            if name.endswith(".json"):
                with _plain_errors(f"{self}/{name}"):
                    self.filesystem.get_file(name, str(folder / name))
        return folder

    def names(self, folder: str = "") -> list[str]:
        """What is directly in a folder, in order; nothing if it isn't there."""
        with _plain_errors(self.location):
            self.filesystem.invalidate_cache()
            try:
                found = self.filesystem.ls(folder, detail=False)
            except FileNotFoundError:
                return []
        return sorted(posixpath.basename(name.rstrip("/")) for name in found)

    def size(self, name: str) -> int:
        with _plain_errors(f"{self}/{name}"):
            return int(self.filesystem.size(name))

    def read(self, name: str, max_bytes: int | None = None) -> bytes | None:
        """A file's first bytes, so many at most; None if it isn't there. Raises OSError where it can't be read."""
        try:
            content: bytes = self.filesystem.cat_file(name, start=None if max_bytes is None else 0, end=max_bytes)
        except FileNotFoundError:
            return None
        except Exception as error:  # plug-ins for stores raise what their clients raise
            raise OSError(f"{self}/{name}: {_one_line(error)}") from error
        return content

    @contextmanager
    def write(self, name: str, tag: str = "") -> Iterator[IO[bytes]]:
        """A file that is put in place at the end. tag: as in `write_atomically`."""
        if self.is_local:
            with write_atomically(self.path / name, tag) as file:
                yield file
            return
        buffer = BytesIO()
        yield buffer
        with _plain_errors(f"{self}/{name}"):
            self.filesystem.pipe_file(name, buffer.getvalue())

    def remove(self, name: str) -> None:
        with _plain_errors(f"{self}/{name}"), suppress(FileNotFoundError):
            self.filesystem.rm_file(name)

    @contextmanager
    def lock(self, name: str, wait_s: float = 0) -> Iterator[bool]:
        """`hold_lock` in this folder; False at a URL, where there are no locks."""
        if not self.is_local:
            yield False
            return
        with hold_lock(self.path / name, wait_s) as is_locked:
            yield is_locked


def fetch_file(url: str) -> Path:
    """A local copy of a remote file, fetched once for as long as its size and version stay the same."""
    import fsspec

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = home / "delta-attnmask" / sha256(url.encode()).hexdigest()[:16]
    options = {"cache_storage": str(cache), "check_files": True, "same_names": True}
    try:
        with _plain_errors(url):
            return Path(fsspec.open_local(f"filecache::{url}", filecache=options))
    except ArtifactError as error:
        raise DataError(f"data file {error}") from error


@contextmanager
def beside(location: str | Path) -> Iterator[Path]:
    """A folder on this machine in which a run folder's calibration is read and written."""
    files = FileStore(location)
    local = files.path / "calibration.json"
    was_there = local.exists()
    yield files.path
    if not files.is_local and local.exists() and not was_there:
        with files.write(local.name) as file:
            file.write(local.read_bytes())


@contextmanager
def _plain_errors(what: str) -> Iterator[None]:
    """Turn what a file system's own code raises, which may be anything, into an ArtifactError of one line."""
    try:
        yield
    except ImportError as error:
        raise ArtifactError(f"{what}: {error}") from error
    except Exception as error:
        raise ArtifactError(f"{what} can't be reached: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
