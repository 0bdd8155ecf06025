"""Settings in a sentence. No torch here."""

from delta_attnmask.reporting.words import write_percent
from delta_attnmask.settings import MaskSettings

_TOKENS = {"all": "all tokens", "prompt": "the prompt's tokens", "image": "the image's tokens"}
_ORDER = {"most": "most attended", "least": "least attended", "random": "randomly drawn"}
_QUERIES = {"all": "every token", "answer": "the tokens that predict the answer"}
_REPLACEMENT = {"zero": "zeros", "mean": "the sample's mean state"}
_EXCLUDE = {"none": "", "sink": " (never the first token)", "special": " (never the first nor a special token)"}


def describe_settings(settings: MaskSettings) -> str:
    """What is masked and where, such as a reader of a page needs it."""
    block = str(settings.block).replace("-", "−")
    early = (
        " Early tokens are seen by more of them, so the top of a picture tends to be warmer."
        if settings.queries == "all"
        else ""
    )
    return (
        f"Masked are the {write_percent(settings.fraction)} {_ORDER[settings.order]} of {_TOKENS[settings.tokens]}"
        f"{_EXCLUDE[settings.exclude]}: what decoder block {block} puts out for them becomes "
        f"{_REPLACEMENT[settings.replacement]}. Attention counts from {_QUERIES[settings.queries]}, averaged over "
        f"heads and blocks.{early}"
    )
