"""What the sources share: splits, the number of turns, and pictures that several conversations are about."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Literal

from ..sample import Picture, Row

Split = Literal["train", "dev", "pool", "test"]
TURN_SHARES = ((1, 0.74), (2, 0.18), (3, 0.08))
TRAINING_TURN_SHARES = (
    (1, 0.3),
    (2, 0.15),
    (3, 0.15),
    (4, 0.15),
    (5, 0.15),
    (6, 0.1),
)  # more to learn from each picture
SHARING = 0.22  # of the pictures carry a second conversation: about a third of all rows share theirs


def draw_turn_count(rng: random.Random, split: Split) -> int:
    """1 to 3, in training up to 6."""
    shares = TRAINING_TURN_SHARES if split == "train" else TURN_SHARES
    return rng.choices([count for count, _ in shares], [share for _, share in shares])[0]


def shared(rng: random.Random, n: int, draw: Callable[[], Picture], tell: Callable[[Picture], Row]) -> Iterator[Row]:
    """`n` rows over fewer pictures."""
    count = 0
    while count < n:
        picture = draw()
        for _ in range(min(n - count, 2 if rng.random() < SHARING else 1)):
            yield tell(picture)
            count += 1
