"""The settings that a sweep tries. No torch here."""

from itertools import product

from delta_attnmask.settings import MaskSettings, Order, Queries, Tokens

_QUERIES: tuple[Queries, ...] = ("all", "answer")
_TOKENS: tuple[Tokens, ...] = ("all", "prompt")
_CONTROL_ORDERS: tuple[Order, ...] = ("random", "least")

STANDARD_GRID: tuple[MaskSettings, ...] = tuple(
    MaskSettings(queries=queries, tokens=tokens, fraction=fraction, block=block)
    for block, queries, tokens, fraction in product((-2, -4), _QUERIES, _TOKENS, (0.1, 0.2, 0.4))
)
"""24 settings: both poolings, two kinds of tokens, three fractions, two blocks."""

CONTROLS: tuple[MaskSettings, ...] = tuple(
    MaskSettings(order=order, fraction=fraction, block=block)
    for order, fraction, block in product(_CONTROL_ORDERS, (0.2, 0.4), (-2, -4))
)
"""What masking does where attention guides nothing: random tokens, and the least attended ones."""

CALIBRATION_GRID: tuple[MaskSettings, ...] = tuple(
    setting for setting in (*STANDARD_GRID, *CONTROLS) if setting.fraction >= 0.2
)
"""What calibration chooses from: 16 settings, and the controls beside them."""
