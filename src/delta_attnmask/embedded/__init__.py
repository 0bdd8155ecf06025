"""The small data set and the small model that come with the package; see DATA.md, LICENSES.md and model/README.md."""

import shutil
import zipfile
from filecmp import cmp
from importlib.resources import as_file, files
from pathlib import Path

from delta_attnmask.errors import SettingsError

_FILES = ("pool.json", "test.json", "defects.json", "LICENSES.md", "DATA.md")


def export(folder: str | Path) -> Path:
    """Write model/, images/, pool.json, test.json and defects.json (pool row to kind of defect) into `folder`.

    Files that are there are left alone; SettingsError where one of these names is another file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files(__name__)) as home:
        for name in (*_FILES, "model/config.json"):
            if (folder / name).exists() and not cmp(home / name, folder / name, shallow=False):
                raise SettingsError(f"{folder / name} isn't of the embedded data; choose another folder")
        for name in _FILES:
            if (home / name).exists():
                shutil.copyfile(home / name, folder / name)
        shutil.copytree(home / "model", folder / "model", dirs_exist_ok=True)
        with zipfile.ZipFile(home / "images.zip") as archive:
            archive.extractall(folder / "images")
    return folder
