"""The flags of the 120 largest countries: name, capital, continent; drawn at many sizes and places."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from embedded.drawing import blank
from embedded.sample import SIDE, Picture, Question, Row, converse
from embedded.sources.mixing import Split, shared
from embedded.wording import Pair, ask, yes_no
from PIL import Image as PILImage

from ..packages import countries, flag

Country = dict[str, str]
GROUNDS = ("white", "gray", "black", "blue")


def samples(rng: random.Random, n: int, split: Split) -> Iterator[Row]:
    """`n` rows; every split shows the same flags, each time drawn anew."""

    def tell(picture: Picture) -> Row:
        return converse("flags", [picture], picture.facts, [rng.choice(QUESTIONS)(rng, picture.facts)])

    return shared(rng, n, lambda: _draw(rng), tell)


def blank_picture(rng: random.Random) -> Picture:
    """A ground without a flag."""
    return Picture(blank(rng, rng.choice(GROUNDS)), None)


def _draw(rng: random.Random) -> Picture:
    country = rng.choice(countries())
    drawing = flag(country["code"])
    width = rng.randint(48, SIDE)
    height = min(SIDE, max(20, round(width * drawing.height / drawing.width * rng.uniform(0.9, 1.1))))
    drawing = drawing.resize((width, height), PILImage.Resampling.LANCZOS)
    canvas = PILImage.fromarray(blank(rng, rng.choice(GROUNDS)))
    canvas.paste(drawing, (rng.randint(0, SIDE - width), rng.randint(0, SIDE - height)), drawing)
    return Picture(np.asarray(canvas), country)


def _name(rng: random.Random, country: Country) -> Question:
    def pair(one: Country) -> Pair:
        return one["name"], f"This is the flag of {one['name']}."

    texts = ("which country has this flag?", "whose flag is this?", "name the country of this flag.")
    return ask(rng, "name", texts, lambda c: pair(c) if c else None, lambda r: pair(r.choice(countries())))


def _capital(rng: random.Random, country: Country) -> Question:
    def pair(one: Country) -> Pair:
        return one["capital"], f"The capital is {one['capital']}."

    texts = ("what is the capital of the country with this flag?", "name the capital of this country.")
    return ask(rng, "capital", texts, lambda c: pair(c) if c else None, lambda r: pair(r.choice(countries())))


def _region(rng: random.Random, country: Country) -> Question:
    def pair(region: str) -> Pair:
        return region, f"The country is in {region}."

    regions = sorted({one["region"] for one in countries()})
    texts = ("on which continent is this country?", "which continent does this flag come from?")
    return ask(rng, "region", texts, lambda c: pair(c["region"]) if c else None, lambda r: pair(r.choice(regions)))


def _is(rng: random.Random, country: Country) -> Question:
    asked = country if rng.random() < 0.5 else rng.choice(countries())

    def pair(one: Country) -> Pair:
        return yes_no(one is asked, f"this is the flag of {one['name']}", f"this is the flag of {one['name']}")

    def reply(one: Country | None) -> Pair:
        return pair(one) if one else ("no", "No, the picture is empty.")

    texts = (f"is this the flag of {asked['name']}?", f"does this flag belong to {asked['name']}?")
    return ask(rng, "is", texts, reply, lambda r: pair(asked if r.random() < 0.5 else r.choice(countries())))


QUESTIONS = (_name, _name, _capital, _region, _is)
