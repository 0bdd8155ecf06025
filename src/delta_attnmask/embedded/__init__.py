"""The small data set and the small model that come with the package; see DATA.md, LICENSES.md and model/README.md."""

import shutil
import zipfile
from importlib.resources import as_file, files
from pathlib import Path

_FILES = ("pool.json", "test.json", "defects.json", "LICENSES.md", "DATA.md")


def export(folder: str | Path) -> Path:
    """Write model/, images/, pool.json, test.json and defects.json (pool row to kind of defect) into `folder`.

    Existing files of these names are replaced; others are left alone.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files(__name__)) as home:
        for name in _FILES:
            if (home / name).exists():
                shutil.copyfile(home / name, folder / name)
        shutil.copytree(home / "model", folder / "model", dirs_exist_ok=True)
        with zipfile.ZipFile(home / "images.zip") as archive:
            archive.extractall(folder / "images")
    return folder
