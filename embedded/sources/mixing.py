"""What the sources share: splits, the number of turns, and pictures that several conversations are about."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Literal

from ..sample import Picture, Row

Split = Literal["train", "dev", "pool", "test"]
TURN_SHARES = ((1, 0.74), (2, 0.18), (3, 0.08))
SHARING = 0.22  # of the pictures carry a second conversation: about a third of all rows share theirs


def draw_turn_count(rng: random.Random) -> int:
    """1, 2 or 3."""
    return rng.choices([count for count, _ in TURN_SHARES], [share for _, share in TURN_SHARES])[0]


def shared(rng: random.Random, n: int, draw: Callable[[], Picture], tell: Callable[[Picture], Row]) -> Iterator[Row]:
    """`n` rows over fewer pictures."""
    count = 0
    while count < n:
        picture = draw()
        for _ in range(min(n - count, 2 if rng.random() < SHARING else 1)):
            yield tell(picture)
            count += 1
