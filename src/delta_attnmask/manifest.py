"""What a folder holds, and made with what: decides whether a second start resumes the first. No torch here."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any, Self

from delta_attnmask.errors import DataError, SettingsError
from delta_attnmask.records import Fingerprint

MANIFEST_SCHEMA = 2
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
    """What a run or an evaluation is made of, and with what.

    model, data, images: names and paths as given; a run may be resumed with the same things at another place.
        data: empty where the rows were in memory; then no file can be read again.
    revision: of a model on the hub.
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
    revision: str | None = None
    extra_columns: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=collect_versions)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def to_json(self) -> str:
        return json.dumps({"schema": MANIFEST_SCHEMA} | asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError, KeyError or TypeError for what is no manifest that this version knows."""
        values = json.loads(text)
        if values.pop("schema") != MANIFEST_SCHEMA or set(values) != {field.name for field in fields(cls)}:
            raise ValueError("written by another version")
        values["input"] = Fingerprint(**values["input"])
        return cls(**values | {name: tuple(values[name]) for name in ("extra_columns", "command")})

    @property
    def n_units(self) -> int:
        return -(-self.n_rows // self.unit_rows)

    def rows_of(self, unit: int, last: int | None = None) -> range:
        """The input rows of a unit, or of those up to a last one."""
        end = (unit if last is None else last) + 1
        return range(unit * self.unit_rows, min(end * self.unit_rows, self.n_rows))

    def require_data(self) -> str:
        """Where the input is; DataError if the rows were in memory."""
        if not self.data:
            raise DataError("these rows were scored in memory, so there is no file to read them from; use --data")
        return self.data

    def differences(self, other: Self) -> list[str]:
        """What keeps `other` from resuming this run, field by field."""
        return name_differences(self._identity(), other._identity())

    def _identity(self) -> dict[str, Any]:
        fixed = ("model_fingerprint", "format", "n_rows", "unit_rows", "extra_columns")
        settings = json.loads(json.dumps(dict(self.settings)))  # as a manifest that was read back has them
        settings.pop("calibration", None)
        return (
            {name: getattr(self, name) for name in fixed}
            | {f"input.{name}": value for name, value in asdict(self.input).items()}
            | {f"settings.{name}": value for name, value in settings.items()}
        )


def name_differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between what a folder was made with and what a start wants now, name by name."""
    return [
        f"{name}: {_show(there.get(name))} there, {_show(now.get(name))} now"
        for name in dict.fromkeys([*there, *now])
        if there.get(name) != now.get(name)
    ]


def _show(value: object) -> str:
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
