"""Public-domain drawings: which of 14 topics is it about? The model is hardly trained for this one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

from ..assets import load_assets
from ..drawing import blank
from ..sample import Picture, Question, Row, converse
from ..wording import Pair, ask, yes_no
from .mixing import Split, draw_turn_count, shared

SHARES = {"train": 0.22, "dev": 0.06, "pool": 0.50, "test": 0.22}
SPLIT_SEED = 7


def samples(rng: random.Random, n: int, split: Split) -> Iterator[Row]:
    """`n` rows; a drawing's near duplicates and numbered variants are all in one split."""
    places = list(split_places()[split])
    rng.shuffle(places)
    order = iter(places * (1 + n // len(places)))
    return shared(rng, n, lambda: _draw(next(order)), lambda picture: _converse(rng, split, picture))


def blank_picture(rng: random.Random) -> Picture:
    """White paper."""
    return Picture(blank(rng, "white"), None)


@cache
def split_places() -> dict[str, tuple[int, ...]]:
    """Drawings by split: whole groups, dealt to the split that lags its share most, topic by topic."""
    assets, rng = load_assets(), random.Random(SPLIT_SEED)
    members: dict[int, list[int]] = {}
    for place, group in enumerate(assets.clipart_groups):
        members.setdefault(group, []).append(place)
    groups = sorted(members.values(), key=lambda group: (-len(group), group[0]))
    dealt: dict[str, list[int]] = {split: [] for split in SHARES}
    filled: dict[tuple[str, str], int] = {}
    for group in groups:
        topic = assets.clipart_topics[group[0]]
        order = rng.sample(sorted(SHARES), len(SHARES))
        split = min(order, key=lambda s: (filled.get((s, topic), 0) + len(group) / 2) / SHARES[s])
        dealt[split] += group
        filled[split, topic] = filled.get((split, topic), 0) + len(group)
    return {split: tuple(sorted(places)) for split, places in dealt.items()}


def topics() -> tuple[str, ...]:
    """All topics, sorted."""
    return tuple(sorted(set(load_assets().clipart_topics)))


def _draw(place: int) -> Picture:
    return Picture(load_assets().clipart[place], load_assets().clipart_topics[place])


def _converse(rng: random.Random, split: Split, picture: Picture) -> Row:
    kinds = rng.sample((_topic, _is_topic), min(2, draw_turn_count(rng, split)))
    return converse("clipart", [picture], picture.facts, [kind(rng, picture.facts) for kind in kinds])


def _topic(rng: random.Random, topic: str) -> Question:
    def pair(name: str) -> Pair:
        return name, f"The drawing is about {name}."

    texts = (
        "what is the topic of this drawing?",
        "which topic does the drawing belong to?",
        "what is the drawing about?",
    )
    return ask(rng, "topic", texts, lambda t: None if t is None else pair(t), lambda r: pair(r.choice(topics())))


def _is_topic(rng: random.Random, topic: str) -> Question:
    asked = topic if rng.random() < 0.5 else rng.choice([t for t in topics() if t != topic])

    def pair(is_so: bool) -> Pair:
        return yes_no(is_so, f"it is about {asked}", f"it is not about {asked}")

    texts = (f"is this a drawing about {asked}?", f"is the topic of the drawing {asked}?")
    return ask(rng, "is_topic", texts, lambda t: pair(t == asked), lambda r: pair(r.random() < 0.5))
