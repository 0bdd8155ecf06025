# ruff: noqa: E501  (rows of Markdown tables are one line each)
"""Writes LICENSES.md: where the shipped pictures come from, and the texts that must go with them."""

from __future__ import annotations

from pathlib import Path

from .fetch import fetch_all

INTRODUCTION = """\
# Licences of the embedded data

The pictures in `images.zip`, and the sentences about them, were made from the packages below. The sentences, the
compositions and the planted defects are part of this project and under its own licence (Apache-2.0, the `LICENSE` file
of the package), but every drawing keeps the licence that its authors gave it.

| Source in the JSON | Package and version | Authors | Licence | What was changed |
|---|---|---|---|---|
| easyvqa | PyPI easy-vqa 1.0 | Victor Zhou | MIT | pictures unchanged; a choice of the questions, with answer forms added |
| emoji, scene | npm @iconify-json/noto 1.2.9 (Noto Emoji) | Google Inc | Apache-2.0 | cropped, scaled, mirrored, put on coloured grounds |
| emoji, scene | npm @iconify-json/twemoji 1.2.5 (Twemoji) | Twitter, Inc and other contributors | CC BY 4.0 | the same |
| emoji, scene | npm @iconify-json/fluent-emoji-flat 1.2.6 (Fluent Emoji) | Microsoft Corporation | MIT | the same |
| emoji, scene | npm @iconify-json/emojione 1.2.3 (Emoji One 2.3 / EmojiTwo) | Emoji One, EmojiTwo contributors | CC BY 4.0 | the same |
| fxemoji | npm @iconify-json/fxemoji 1.2.2 (Firefox OS Emoji) | Mozilla Foundation | Apache-2.0 | the same |
| emoji, scene, fxemoji, text | npm emojibase-data 17.0.0 (names and code points) | Miles Johnson | MIT | a choice of names, some shortened |
| chart | PyPI vega-datasets 0.9.0 (runs of 14 series) | Jake Vanderplas; the tables' own sources are named below | MIT | drawn as bars without numbers |
| clipart | Debian openclipart-svg 1:0.18+dfsg-19 | the contributors of the Open Clip Art Library | public domain | cropped and scaled to 64 pixels; only files marked as public domain; none marked GPL |

Attribution under CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/): Twemoji, copyright Twitter, Inc and other
contributors (https://github.com/jdecked/twemoji); Emoji One 2.3 and EmojiTwo, copyright their contributors
(https://github.com/EmojiTwo/emojitwo). Both were changed as the table says. No endorsement is implied.

Apache-2.0 (https://www.apache.org/licenses/LICENSE-2.0) covers Noto Emoji (https://github.com/googlefonts/noto-emoji) and
Firefox OS Emoji (https://github.com/mozilla/fxemoji); its text is in the `LICENSE` file of this package.

The series behind the charts: the price of wheat and weekly wages (William Playfair, 1822); miles driven and the price of
gas (The New York Times, 2010); barley yields (Immer, Hayes and Powers, 1934); horsepower and miles per gallon of cars
(Donoho and Ramos, 1982); deaths in the Crimean War (Florence Nightingale, 1858); Seattle weather (NOAA); employment (US
Bureau of Labor Statistics); monthly stock prices 2000 to 2010; electricity generated in Iowa (US Energy Information
Administration).
"""

FLUENT_COPYRIGHT = "Copyright (c) Microsoft Corporation."


def licences_text() -> str:
    """The whole of LICENSES.md."""
    packages = fetch_all()
    mit = (packages["easy-vqa"] / "easy_vqa-1.0.dist-info/LICENSE").read_text()
    permission = mit[mit.index("Permission is hereby granted") :].strip()
    holders = [
        "Copyright (c) 2019 Victor Zhou (easy-vqa)",
        f"{FLUENT_COPYRIGHT} (Fluent Emoji)",
        _holder(packages["emojibase-data"] / "package/LICENSE") + " (emojibase-data)",
        _holder(packages["vega-datasets"] / "vega_datasets-0.9.0.dist-info/LICENSE") + " (vega-datasets)",
    ]
    notice = "\n".join(holders)
    return f"{INTRODUCTION}\n## MIT licence\n\n```\n{notice}\n\n{permission}\n```\n"


def _holder(path: Path) -> str:
    return next(line for line in path.read_text().splitlines() if line.startswith("Copyright"))
