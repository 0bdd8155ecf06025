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
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from pyarrow import ArrowException

from delta_attnmask.errors import ArtifactError, DataError, DeltaAttnMaskError
from delta_attnmask.storage import create_text, hold_lock, write_atomically

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])")  # one slash: as a URL looks that was made a Path
_FILE = re.compile(r"file:/{1,3}")
_WAIT_S = 5.0  # for shards that start at the same moment


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


class LocalFolder:
    """The files of a folder on this machine: written whole or not at all, and locked by who writes them.

    Names are relative, such as `scores/unit-00000.parquet`.
    """

    filesystem = None  # of fsspec; None stands for this machine's
    errors: tuple[type[Exception], ...] = (OSError, ArrowException)  # what reading may raise

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def place(self, name: str) -> str:
        """What `filesystem` calls a file."""
        return str(self.path / name)

    def names(self, folder: str = "") -> list[str]:
        """What lies directly in a folder; nothing if it isn't there."""
        try:
            return os.listdir(self.path / folder)  # noqa: PTH208 - names are all that is needed
        except FileNotFoundError:
            return []

    def folders(self) -> list[str]:
        """The folders that aren't empty."""
        return sorted(entry.name for entry in self.path.iterdir() if entry.is_dir() and any(entry.iterdir()))

    def size(self, name: str) -> int:
        return (self.path / name).stat().st_size

    @contextmanager
    def write(self, name: str, tag: str = "") -> Iterator[IO[bytes]]:
        with write_atomically(self.path / name, tag) as file:
            yield file

    def create(self, name: str, text: str, tag: str = "") -> None:
        """Write unless it is there."""
        create_text(self.path / name, text, tag)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    @contextmanager
    def hold(self, tag: str = "") -> Iterator[bool]:
        """Make the folder and lock it, or with a tag that share of it; yields False where there are no locks.

        Who holds the whole folder holds `lock` and every share's lock. A share holds its own, and while it takes that
        one also `lock`, so that nobody begins on the whole unseen.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"folder {self.path} can't be made: {error.strerror}") from error
        with ExitStack() as held:
            if tag:
                with hold_lock(self.path / "lock", _WAIT_S):
                    is_locked = held.enter_context(hold_lock(self.path / f"lock{tag}"))
            else:
                is_locked = held.enter_context(hold_lock(self.path / "lock"))
                for share in self.path.glob("lock-*"):
                    held.enter_context(hold_lock(share))
            yield is_locked


class RemoteFolder:
    """The files of a folder in an object store or on a file server.

    Each write puts a whole file in one step, as object stores do; there are no locks.
    Raises DeltaAttnMaskError, with what the file system says, where it refuses.
    """

    errors: tuple[type[Exception], ...] = (Exception,)  # plug-ins for stores raise what their clients raise

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        import fsspec

        with _plain_errors(self.url):
            base, root = fsspec.url_to_fs(self.url)
            self.filesystem = fsspec.filesystem("dir", fs=base, path=root)

    def __str__(self) -> str:
        return self.url

    @cached_property
    def path(self) -> Path:
        """A folder on this machine for what is fetched; it is removed together with this object."""
        folder = Path(tempfile.mkdtemp(prefix="delta-attnmask-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def place(self, name: str) -> str:
        """What `filesystem` calls a file."""
        return name

    def names(self, folder: str = "") -> list[str]:
        """What lies directly in a folder; nothing if it isn't there."""
        return [posixpath.basename(entry["name"].rstrip("/")) for entry in self._list(folder)]

    def folders(self) -> list[str]:
        return [posixpath.basename(one["name"].rstrip("/")) for one in self._list("") if one["type"] == "directory"]

    def size(self, name: str) -> int:
        with _plain_errors(f"{self.url}/{name}"):
            return int(self.filesystem.size(name))

    @contextmanager
    def write(self, name: str, tag: str = "") -> Iterator[IO[bytes]]:
        buffer = BytesIO()
        yield buffer
        with _plain_errors(f"{self.url}/{name}"):
            self.filesystem.pipe_file(name, buffer.getvalue())
        if name.endswith(".json"):
            (self.path / name).write_bytes(buffer.getvalue())

    def create(self, name: str, text: str, tag: str = "") -> None:
        """Write unless it is there. Some stores can't decide that in one step, so what came of it is fetched."""
        with _plain_errors(f"{self.url}/{name}"):
            with suppress(FileExistsError):
                self.filesystem.pipe_file(name, text.encode(), mode="create")
            self.filesystem.get_file(name, str(self.path / name))

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)
        with _plain_errors(f"{self.url}/{name}"), suppress(FileNotFoundError):
            self.filesystem.rm_file(name)

    @contextmanager
    def hold(self, tag: str = "") -> Iterator[bool]:
        yield False

    def fetch_json(self) -> None:
        """Copy the JSON files to `path`."""
        for name in self.names():
            if name.endswith(".json"):
                with _plain_errors(f"{self.url}/{name}"):
                    self.filesystem.get_file(name, str(self.path / name))

    def _list(self, folder: str) -> list[dict[str, Any]]:
        with _plain_errors(self.url):
            self.filesystem.invalidate_cache()
            try:
                found: list[dict[str, Any]] = self.filesystem.ls(folder, detail=True)
            except FileNotFoundError:
                return []
        return sorted(found, key=lambda entry: entry["name"])

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """A file's first bytes, so many at most; None if it isn't there. Raises OSError where it can't be read."""
        try:
            content: bytes = self.filesystem.cat_file(name, start=0, end=max_bytes)
        except FileNotFoundError:
            return None
        except Exception as error:  # plug-ins for stores raise what their clients raise
            raise OSError(f"{self.url}/{name}: {type(error).__name__}: {_one_line(error)}") from error
        return content


def reach(location: str | Path) -> LocalFolder | RemoteFolder:
    """The folder of a path, or of a URL with its JSON files fetched."""
    if (url := as_url(location)) is None:
        return LocalFolder(as_path(location))
    remote = RemoteFolder(url)
    remote.fetch_json()
    return remote


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
    """A folder of this machine in which a run folder's calibration is read and written."""
    folder = reach(location)
    local = folder.path / "calibration.json"
    was_there = local.exists()
    yield folder.path
    if isinstance(folder, RemoteFolder) and local.exists() and not was_there:
        with folder.write(local.name) as file:
            file.write(local.read_bytes())


@contextmanager
def _plain_errors(what: str) -> Iterator[None]:
    """Turn what a file system's own code raises, which may be anything, into an ArtifactError of one line."""
    try:
        yield
    except DeltaAttnMaskError:
        raise
    except ImportError as error:
        raise ArtifactError(f"{what}: {error}") from error
    except Exception as error:
        raise ArtifactError(f"{what} can't be reached: {type(error).__name__}: {_one_line(error)}") from error


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())[:200]
