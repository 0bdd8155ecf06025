"""Downloads the pinned packages with their ordinary clients and unpacks them; checks every file's SHA-256."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CACHE = Path.home() / ".cache" / "delta-attnmask-build"


@dataclass(frozen=True, slots=True)
class Package:
    """A pinned third-party package; `client` is pypi, npm or apt."""

    client: str
    name: str
    version: str
    archive: str
    sha256: str


PACKAGES = (
    Package(
        "pypi",
        "easy-vqa",
        "1.0",
        "easy_vqa-1.0-py3-none-any.whl",
        "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
    ),
    Package(
        "pypi",
        "vega-datasets",
        "0.9.0",
        "vega_datasets-0.9.0-py3-none-any.whl",
        "3d7c63917be6ca9b154b565f4779a31fedce57b01b5b9d99d8a34a7608062a1d",
    ),
    Package(
        "npm",
        "@iconify-json/noto",
        "1.2.9",
        "iconify-json-noto-1.2.9.tgz",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    ),
    Package(
        "npm",
        "@iconify-json/twemoji",
        "1.2.5",
        "iconify-json-twemoji-1.2.5.tgz",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    ),
    Package(
        "npm",
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "iconify-json-fluent-emoji-flat-1.2.6.tgz",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
    Package(
        "npm",
        "@iconify-json/emojione",
        "1.2.3",
        "iconify-json-emojione-1.2.3.tgz",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
    ),
    Package(
        "npm",
        "@iconify-json/fxemoji",
        "1.2.2",
        "iconify-json-fxemoji-1.2.2.tgz",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
    ),
    Package(
        "npm",
        "emojibase-data",
        "17.0.0",
        "emojibase-data-17.0.0.tgz",
        "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    ),
    Package(
        "apt",
        "openclipart-svg",
        "1:0.18+dfsg-19",
        "openclipart-svg_1%3a0.18+dfsg-19_all.deb",
        "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
    ),
)


def fetch_all(cache: Path = CACHE, packages: Sequence[Package] = PACKAGES) -> dict[str, Path]:
    """Every package's unpacked folder by package name; what is already there is only checked."""
    cache.mkdir(parents=True, exist_ok=True)
    return {package.name: _fetch(package, cache) for package in packages}


def _fetch(package: Package, cache: Path) -> Path:
    archive = cache / package.archive
    if not archive.exists():
        subprocess.run(_command(package), cwd=cache, check=True, stdout=subprocess.DEVNULL)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise SystemExit(f"{package.archive}: SHA-256 is {found}, expected {package.sha256}; delete it and run again")
    folder = cache / "unpacked" / archive.stem
    if not folder.exists():
        _unpack(archive, folder)
    return folder


def _command(package: Package) -> list[str]:
    if package.client == "pypi":
        return [sys.executable, "-m", "pip", "download", "--no-deps", f"{package.name}=={package.version}"]
    if package.client == "npm":
        return ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    return ["apt-get", "download", f"{package.name}={package.version}"]


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    if archive.suffix == ".whl":
        zipfile.ZipFile(archive).extractall(folder)
    elif archive.suffix == ".tgz":
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    else:
        subprocess.run(["dpkg", "-x", str(archive), str(folder)], check=True)
