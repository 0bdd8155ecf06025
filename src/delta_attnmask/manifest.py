"""What a run scores, and with what: decides whether a second start goes on with the first. No torch here."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any, Self

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.records import Fingerprint
from delta_attnmask.storage import TEMPORARY, create_text

MANIFEST_SCHEMA = 1
_HASH = re.compile(r"[0-9a-f]{40,}")
_N_HASH_DIGITS = 12
_VERSIONED = ("delta-attnmask", "torch", "transformers", "tokenizers", "pillow", "pyarrow", "numpy")


def collect_versions() -> dict[str, str]:
    """The versions of everything that can change a score, without importing any of it."""
    versions = {"python": python_version()}
    for name in _VERSIONED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a run scores, and with what.

    model, data, images: names and paths as given; a run may go on with the same things at another place.
    model_fingerprint, settings, input, format, n_rows, unit_rows, extra_columns: decide the scores and how they are
        laid out, so they must not change within a folder.
    settings: plain JSON values; `calibration` only says where the others come from, and may change.
    unit_rows: rows a work unit; the last one may have fewer.
    """

    model: str
    model_fingerprint: str
    settings: Mapping[str, Any]
    data: str
    images: str
    input: Fingerprint
    format: str
    n_rows: int
    unit_rows: int
    extra_columns: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=collect_versions)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def to_json(self) -> str:
        return json.dumps({"schema": MANIFEST_SCHEMA} | asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError, KeyError or TypeError for what is no manifest of this version."""
        values = json.loads(text)
        if values.pop("schema") != MANIFEST_SCHEMA or set(values) != {field.name for field in fields(cls)}:
            raise ValueError("written by another version")
        values["input"] = Fingerprint(**values["input"])
        return cls(**values | {name: tuple(values[name]) for name in ("extra_columns", "command")})

    @property
    def n_units(self) -> int:
        return -(-self.n_rows // self.unit_rows)

    def rows_of(self, unit: int) -> range:
        """The input rows of a unit."""
        first = unit * self.unit_rows
        return range(first, min(first + self.unit_rows, self.n_rows))

    def differences(self, other: Self) -> list[str]:
        """What keeps `other` from going on with this run, field by field."""
        return tell_differences(self._identity(), other._identity())

    def _identity(self) -> dict[str, Any]:
        fixed = ("model_fingerprint", "format", "n_rows", "unit_rows", "extra_columns")
        settings = json.loads(json.dumps(dict(self.settings)))  # as a manifest that was read back has them
        settings.pop("calibration", None)
        return (
            {name: getattr(self, name) for name in fixed}
            | {f"input.{name}": value for name, value in asdict(self.input).items()}
            | {f"settings.{name}": value for name, value in settings.items()}
        )


def tell_differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between what a folder was made with and what a start wants now, name by name."""
    return [
        f"{name}: {show_value(there.get(name))} there, {show_value(now.get(name))} now"
        for name in dict.fromkeys([*there, *now])
        if there.get(name) != now.get(name)
    ]


def show_value(value: object) -> str:
    """A value for a message; of a hash its first digits."""
    is_hash = isinstance(value, str) and _HASH.fullmatch(value)
    return repr(f"{str(value)[:_N_HASH_DIGITS]}…" if is_hash else value)


@dataclass(frozen=True)
class Shard:
    """Which units a process does when several share a run without talking: those with `unit % count == index`."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise SettingsError(f"shard {self.index}/{self.count}: expected I/N with I from 0 to N-1")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `I/N`, I from 0."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise SettingsError(f"shard={text!r}: expected I/N such as 0/8, I from 0 to N-1")
        return cls(int(index), int(count))

    @property
    def is_whole(self) -> bool:
        return self.count == 1

    @property
    def tag(self) -> str:
        """What this shard's own files carry in their names; empty for the whole run."""
        return "" if self.is_whole else f"-{self.index}-of-{self.count}"

    def owns(self, unit: int) -> bool:
        return unit % self.count == self.index


WHOLE = Shard()


def agree(path: Path, manifest: Manifest, shard: Shard) -> Manifest:
    """The folder's manifest: this one if there is none yet, else the one that is there, if it is of the same run."""
    found = read_manifest(path)
    if found is None:
        refuse_foreign_files(path)
        create_text(path / "manifest.json", manifest.to_json(), shard.tag)
        found = read_manifest(path)  # another shard may have been faster
    if found is None:
        raise ArtifactError(f"{path / 'manifest.json'} vanished; is another program at work in this folder?")
    refuse_another(path, found, manifest)
    return found


def refuse_another(path: Path, found: Manifest, manifest: Manifest) -> None:
    if differences := found.differences(manifest):
        raise ArtifactError(
            f"{path} holds another run; choose another folder, or repeat that run's choices. "
            f"What differs: {'; '.join(differences)}"
        )


def read_manifest(path: Path) -> Manifest | None:
    try:
        return Manifest.from_json((path / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path / 'manifest.json'} can't be read: {error}") from error


def refuse_foreign_files(path: Path) -> None:
    """A folder without a manifest may hold only what a run leaves that was killed before it wrote one.

    Raises ArtifactError where it holds something else.
    """
    for entry in path.iterdir():
        is_own = entry.name in {"scores", "calibration.json"} or entry.name.startswith("lock")
        is_own = is_own or entry.name.endswith(TEMPORARY)
        is_foreign = not is_own or (entry.is_dir() and any(entry.iterdir()))
        if is_foreign and not (path / "manifest.json").exists():  # another shard may have put it there meanwhile
            raise ArtifactError(
                f"{path} isn't empty and is no run folder (it has {entry.name!r}); choose another folder"
            )
