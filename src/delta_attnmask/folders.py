"""The folder of a run, an evaluation or a training: it resumes what it holds and refuses all else. No torch here.

FOLDER/manifest.json   what it holds: a second start must agree with it
FOLDER/lock            held by the process that writes; shards of a run also have their own, such as `lock-0-of-8`

A folder at a URL has a copy of its JSON files on this machine.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from delta_attnmask.errors import ArtifactError
from delta_attnmask.locations import LocalFolder, RemoteFolder, reach
from delta_attnmask.manifest import WHOLE, Shard
from delta_attnmask.storage import TEMPORARY, remove_stale


class Identity(Protocol):
    """What a folder holds, as far as a second start must agree with it."""

    def to_json(self) -> str: ...

    def differences(self, other: Self) -> list[str]: ...


IdentityT = TypeVar("IdentityT", bound=Identity)


class Folder(Generic[IdentityT]):
    """A folder that holds one thing. `open` reads it, `start` holds it for writing, `join` writes for its holder.

    files: where it is. path: the folder, or its copy on this machine.
    """

    kind: ClassVar[str]  # what it holds, in messages
    command: ClassVar[str]  # what makes it
    identity_file: ClassVar[str] = "manifest.json"
    early_files: ClassVar[frozenset[str]] = frozenset()  # what may lie there before the first start
    takes_urls: ClassVar[bool] = True

    def __init__(self, files: LocalFolder | RemoteFolder, manifest: IdentityT, shard: Shard = WHOLE) -> None:
        self.files, self.manifest, self.shard = files, manifest, shard

    @classmethod
    def parse(cls, text: str) -> IdentityT:
        """What the identity file says; raises ValueError, KeyError or TypeError where it says nothing."""
        raise NotImplementedError

    @classmethod
    def open(cls, location: str | Path) -> Self:
        """Open a folder for reading; ArtifactError if it doesn't hold this."""
        files = reach(location)
        if (found := cls._find(files)) is None:
            raise ArtifactError(
                f"{files} holds no {cls.kind}: it has no {cls.identity_file}; "
                f"`delta-attnmask {cls.command} --out` makes one"
            )
        return cls(files, found)

    @classmethod
    @contextmanager
    def start(cls, location: str | Path, manifest: IdentityT, shard: Shard = WHOLE) -> Iterator[Self]:
        """Begin in a new or empty folder, or resume the same thing; the folder is locked meanwhile.

        A whole run is alone in its folder; shards share it, each with its own lock.
        Raises ArtifactError, naming every difference, if the folder holds something else, and if another process
        works on it.
        """
        files = reach(location)
        if isinstance(files, RemoteFolder) and not cls.takes_urls:
            raise ArtifactError(f"{files}: a {cls.kind} needs a folder on this machine; copy it when it is done")
        with files.hold(shard.tag) as is_locked:
            found = cls._find(files)
            if found is None:
                cls.refuse_foreign(location)
                files.create(cls.identity_file, manifest.to_json(), shard.tag)
                found = cls._find(files)  # another shard may have been faster
            if found is None:
                raise ArtifactError(f"{files}: {cls.identity_file} vanished; does another program use this folder?")
            cls._refuse_another(files, found, manifest)
            if is_locked:
                remove_stale(files.path, shard.tag)
            yield cls(files, found, shard)

    @classmethod
    def join(cls, location: str | Path, manifest: IdentityT, shard: Shard = WHOLE) -> Self:
        """Write units of what another process holds, or of its shard; ArtifactError where that is something else."""
        folder = cls.open(location)
        cls._refuse_another(folder.files, folder.manifest, manifest)
        folder.shard = shard
        return folder

    @classmethod
    def refuse_foreign(cls, location: str | Path) -> None:
        """Raise ArtifactError where nothing could start in a folder for what lies there, before anything is computed.

        Without an identity file it may hold only what a process leaves that was killed before it wrote one.
        """
        files = reach(location)
        if isinstance(files, LocalFolder) and not files.path.is_dir():
            if files.path.exists():
                raise ArtifactError(f"{files} is a file; choose a folder")
            return
        foreign = [name for name in files.names() if not (name in cls.early_files or _is_left_over(name))]
        foreign = [name for name in foreign if not (files.path / name).is_dir() or name in files.folders()]
        if foreign and cls.identity_file not in files.names():  # another shard may have been faster
            raise ArtifactError(f"{files} isn't empty and holds no {cls.kind} (it has {foreign[0]!r}); choose another")

    @property
    def path(self) -> Path:
        return self.files.path

    @property
    def location(self) -> str:
        """The folder as a user would name it: its path or its URL."""
        return str(self.files)

    @property
    def manifest_sha256(self) -> str:
        return sha256((self.path / self.identity_file).read_bytes()).hexdigest()

    def write_json(self, name: str, content: Any, indent: int | None = None) -> None:
        with self.files.write(name, self.shard.tag) as file:
            file.write((json.dumps(content, indent=indent, ensure_ascii=False) + "\n").encode())

    @classmethod
    def _find(cls, files: LocalFolder | RemoteFolder) -> IdentityT | None:
        try:
            return cls.parse((files.path / cls.identity_file).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{files}/{cls.identity_file} can't be read: {error}") from error

    @classmethod
    def _refuse_another(cls, files: LocalFolder | RemoteFolder, found: IdentityT, manifest: IdentityT) -> None:
        if differences := found.differences(manifest):
            raise ArtifactError(
                f"{files} holds another {cls.kind}; choose another folder, or repeat that one's choices. "
                f"What differs: {'; '.join(differences)}"
            )


def _is_left_over(name: str) -> bool:
    return name.startswith("lock") or name.endswith(TEMPORARY)
