"""How fast a run went, over all its starts and shards. No torch here."""

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from delta_attnmask.storage import write_text_atomically

_SECONDS_BETWEEN_WRITES = 1.0
_COMPLETE = "complete.json"  # holds the pace of a run that is done, under the key `pace`


@dataclass(frozen=True)
class Pace:
    """How long scoring took: wall-clock seconds from the start to the last unit, for the rows of these units.

    Summed over all starts; a process that is killed leaves out what it did in its last second. Of shards, which run
    side by side, the slowest counts.
    """

    n_rows: int = 0
    seconds: float = 0.0


class PaceKeeper:
    """Counts the rows of one process and writes them down at most once a second; `tag` is that of its shard."""

    def __init__(self, folder: Path, tag: str = "") -> None:
        self._path, self._tag = folder / f"pace{tag}.json", tag
        is_done = not tag and not self._path.exists()
        self._pace = _read(folder / _COMPLETE if is_done else self._path)
        self._since = self._written = time.monotonic()

    def count(self, n_rows: int) -> None:
        """Count the rows of a unit that is done, and the time since the last one."""
        now = time.monotonic()
        self._pace = Pace(self._pace.n_rows + n_rows, round(self._pace.seconds + now - self._since, 3))
        self._since = now
        if now - self._written >= _SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        if self._pace.n_rows:
            self._written = time.monotonic()
            write_text_atomically(self._path, json.dumps(asdict(self._pace)) + "\n", self._tag)


def read_pace(folder: Path) -> Pace:
    """The pace of the whole run; no rows if nobody knows."""
    shards = [_read(path) for path in sorted(folder.glob("pace-*.json"))]
    alone = _read(folder / ("pace.json" if (folder / "pace.json").exists() else _COMPLETE))
    return Pace(
        alone.n_rows + sum(pace.n_rows for pace in shards),
        round(alone.seconds + max((pace.seconds for pace in shards), default=0.0), 3),
    )


def remove_paces(folder: Path) -> list[Path]:
    """Remove what single processes have written down; where that was."""
    paths = list(folder.glob("pace*.json"))
    for path in paths:
        path.unlink(missing_ok=True)
    return paths


def _read(path: Path) -> Pace:
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return Pace(**found.get("pace", found))
    return Pace()
