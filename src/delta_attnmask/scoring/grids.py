"""The settings that a sweep tries. No torch here."""

from itertools import product

from delta_attnmask.settings import MaskSettings, Queries, Tokens

_QUERIES: tuple[Queries, ...] = ("all", "answer")
_TOKENS: tuple[Tokens, ...] = ("all", "prompt")
_FRACTIONS = {-2: (0.1, 0.2, 0.4), -4: (0.2, 0.4)}  # by block; a deeper tail costs more

_CHOICES: tuple[MaskSettings, ...] = tuple(
    MaskSettings(queries=queries, tokens=tokens, fraction=fraction, block=block)
    for block, fractions in _FRACTIONS.items()
    for queries, tokens, fraction in product(_QUERIES, _TOKENS, fractions)
)
"""20 settings: both poolings, two kinds of tokens, the fractions, two blocks."""

_VARIANTS: tuple[MaskSettings, ...] = (
    MaskSettings(replacement="mean"),
    MaskSettings(exclude="special"),
    MaskSettings(tokens="image"),
)
"""The plainest reading with one thing changed: what replaces a state, and which tokens may be masked."""

CONTROLS: tuple[MaskSettings, ...] = (
    MaskSettings(order="random"),
    MaskSettings(order="random", block=-4),
    MaskSettings(order="least"),
)
"""What masking does where attention guides nothing: random tokens, and the least attended ones."""

STANDARD_GRID: tuple[MaskSettings, ...] = (*_CHOICES, *_VARIANTS, *CONTROLS)
"""What `--sweep` tries: 26 settings, controls among them; a model without images has one less."""

CALIBRATION_GRID: tuple[MaskSettings, ...] = (
    *(setting for setting in _CHOICES if setting.fraction >= 0.2),
    *CONTROLS,
)
"""What calibration chooses from: 16 settings, and the controls beside them."""
