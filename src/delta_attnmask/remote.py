"""Files and folders behind URLs, by fsspec: `s3://…`, `gs://…`, `memory://…`. No torch here.

Nothing is reached unless a path that the user gave is a URL; what rows say never is one.
"""

import os
import posixpath
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from delta_attnmask.errors import ArtifactError, DataError, DeltaAttnMaskError

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])")  # one slash: as a URL looks that was made a Path
_FILE = re.compile(r"file:/{1,3}")
_CALIBRATION = "calibration.json"


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


class RemoteFolder:
    """A folder of an object store or a file server.

    Each write puts a whole file in one step, as object stores do; there are no locks.
    Raises DeltaAttnMaskError, with what the file system says, where it refuses.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        import fsspec

        with _told(self.url):
            self._fs, self._root = fsspec.url_to_fs(self.url)

    def names(self, folder: str = "") -> list[str]:
        """What the files are called that lie directly in a folder; none if it isn't there."""
        with _told(self.url):
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return []
        return sorted(posixpath.basename(entry["name"]) for entry in found if entry["type"] == "file")

    def folders(self) -> list[str]:
        with _told(self.url):
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self._path(""), detail=True)
            except FileNotFoundError:
                return []
        return sorted(posixpath.basename(entry["name"].rstrip("/")) for entry in found if entry["type"] == "directory")

    def __str__(self) -> str:
        return self.url

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """A file's first bytes, so many at most; None if it isn't there. Raises OSError where it can't be read."""
        try:
            content: bytes = self._fs.cat_file(self._path(name), start=0, end=max_bytes)
        except FileNotFoundError:
            return None
        except Exception as error:  # plug-ins for stores raise what their clients raise
            raise OSError(f"{self.url}/{name}: {type(error).__name__}: {_one_line(error)}") from error
        return content

    def put(self, name: str, content: bytes) -> None:
        with _told(f"{self.url}/{name}"):
            self._fs.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> None:
        """Write unless it is there. Some stores can't decide that in one step: read back what came of it."""
        with _told(f"{self.url}/{name}"):
            try:
                self._fs.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return

    def remove(self, name: str) -> None:
        with _told(f"{self.url}/{name}"):
            self._fs.rm_file(self._path(name))

    def fetch(self, name: str, folder: Path) -> None:
        """Copy a file to the same place below a folder of this machine."""
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with _told(f"{self.url}/{name}"):
            self._fs.get_file(self._path(name), str(folder / name))

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name) if name else self._root


def fetch_about(remote: RemoteFolder, folder: Path) -> None:
    """Fetch what a run folder says of itself, without its tables."""
    for name in remote.names():
        if name.endswith(".json"):
            remote.fetch(name, folder)


def fetch_run(remote: RemoteFolder) -> Path:
    """Fetch a run folder into a new one of this machine, which the caller removes."""
    folder = Path(tempfile.mkdtemp(prefix="delta-attnmask-"))
    fetch_about(remote, folder)
    if (folder / "manifest.json").exists():
        for kind in remote.folders():
            for name in remote.names(kind):
                remote.fetch(f"{kind}/{name}", folder)
    return folder


def refuse_foreign(remote: RemoteFolder) -> None:
    """A folder in which a run begins may hold a calibration, and nothing else."""
    names = [name for name in remote.names() if name != _CALIBRATION] + remote.folders()
    if names and "manifest.json" not in names:
        raise ArtifactError(f"{remote.url} isn't empty and is no run folder (it has {names[0]!r}); choose another")


def replace_remote(remote: RemoteFolder, folder: Path) -> None:
    """Make a remote folder what the local one is: first everything new is put there, then the rest is removed."""
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"lock"}
    there = {*remote.names(), *(f"{kind}/{name}" for kind in remote.folders() for name in remote.names(kind))}
    for name in sorted(here - there):
        remote.put(name, (folder / name).read_bytes())
    for name in sorted(there - here):
        remote.remove(name)


def fetch_file(url: str) -> Path:
    """A local copy of a remote file, fetched once for as long as its size and version stay the same."""
    import fsspec

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = home / "delta-attnmask" / sha256(url.encode()).hexdigest()[:16]
    options = {"cache_storage": str(cache), "check_files": True, "same_names": True}
    try:
        with _told(url):
            return Path(fsspec.open_local(f"filecache::{url}", filecache=options))
    except ArtifactError as error:
        raise DataError(f"data file {error}") from error


@contextmanager
def beside(location: str | Path) -> Iterator[Path]:
    """A folder of this machine that stands for a run folder where its calibration is read and written."""
    url = as_url(location)
    if url is None:
        yield as_path(location)
        return
    remote = RemoteFolder(url)
    with tempfile.TemporaryDirectory() as copy:
        there = [name for name in remote.names() if name in {"manifest.json", _CALIBRATION}]
        for name in there:
            remote.fetch(name, Path(copy))
        yield Path(copy)
        made = Path(copy) / _CALIBRATION
        if made.exists() and _CALIBRATION not in there:
            remote.put(_CALIBRATION, made.read_bytes())


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Say plainly what a file system's own code raises, which may be anything."""
    try:
        yield
    except (DeltaAttnMaskError, FileExistsError):
        raise
    except ImportError as error:
        raise ArtifactError(f"{what}: {error}") from error
    except Exception as error:
        raise ArtifactError(f"{what} can't be reached: {type(error).__name__}: {_one_line(error)}") from error


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())[:200]
