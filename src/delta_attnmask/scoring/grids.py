"""The settings that a sweep tries. No torch here."""

from itertools import product

from delta_attnmask.settings import MaskSettings, Queries, Tokens

_QUERIES: tuple[Queries, ...] = ("all", "answer")
_TOKENS: tuple[Tokens, ...] = ("all", "prompt")

STANDARD_GRID: tuple[MaskSettings, ...] = tuple(
    MaskSettings(queries=queries, tokens=tokens, fraction=fraction, block=block)
    for block, queries, tokens, fraction in product((-2, -4), _QUERIES, _TOKENS, (0.1, 0.2, 0.4))
)
"""24 settings: both poolings, two kinds of tokens, three fractions, two blocks."""

CONTROLS: tuple[MaskSettings, ...] = (
    MaskSettings(order="random"),
    MaskSettings(order="random", block=-4),
    MaskSettings(order="least"),
)
"""What masking does where attention guides nothing: random tokens, and the least attended ones."""

CALIBRATION_GRID: tuple[MaskSettings, ...] = (
    *(setting for setting in STANDARD_GRID if setting.fraction >= 0.2),
    *CONTROLS,
)
"""What calibration chooses from: 16 settings, and the controls beside them."""
