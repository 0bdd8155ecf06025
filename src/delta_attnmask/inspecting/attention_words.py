"""What a comparison says, in words. A difference whose interval holds zero is no change. No torch here."""

from dataclasses import dataclass

from delta_attnmask.inspecting.comparison import Change, Comparison, MeasureChange, PickOverlap
from delta_attnmask.reporting.words import name_form, write_percent
from delta_attnmask.statistics import Estimate

_NO_CHANGE = "no change to be told"


@dataclass(frozen=True)
class Meaning:
    """How a measure is called and read.

    more, less: what it means that it rose or fell; the braces take "slightly". small: a change below it is slight.
    """

    title: str
    what: str
    more: str
    less: str
    is_share: bool = True
    small: float = 0.01


MEANINGS = {
    "entropy": Meaning(
        "Spread of attention (entropy)",
        "How widely a position’s attention is spread over the tokens that it sees: 0 nats is all on one token, "
        "0.69 nats more is as if twice as many were looked at. Mean over heads and positions.",
        "attention is spread {}more widely",
        "attention is {}more concentrated",
        is_share=False,
        small=0.05,
    ),
    "image": Meaning(
        "On the image",
        "Share of all positions’ attention that goes to image tokens.",
        "{}more attention goes to the image",
        "{}less attention goes to the image",
    ),
    "question": Meaning(
        "On the question",
        "Share of all positions’ attention that goes to the words of the prompt, special tokens left out.",
        "{}more attention goes to the question",
        "{}less attention goes to the question",
    ),
    "sink": Meaning(
        "On sinks",
        "Share of all positions’ attention that goes to the first token and to special tokens, where models put "
        "attention that they have no use for.",
        "{}more attention goes to tokens without content",
        "{}less attention goes to tokens without content",
    ),
    "answer_to_image": Meaning(
        "From the answer to the image",
        "Share on image tokens of the positions that predict a token of the answer: how much the model looks while it "
        "answers.",
        "the answer looks {}more at the image",
        "the answer looks {}less at the image",
    ),
}


def headline(comparison: Comparison) -> str:
    """What changed, over all blocks."""
    told = [measure for measure in comparison.measures if measure.overall.is_told]
    if not told:
        return "After tuning, no change of attention can be told"
    strongest = sorted(told, key=lambda measure: -abs(_in_interval_widths(measure.overall.difference)))[:3]
    if all(_is_slight(measure) for measure in told):
        phrases = [_direction(measure, "") for measure in strongest]
        return f"After tuning, attention changes only slightly: {_join(phrases)}"
    return f"After tuning, {_join([direction(measure) for measure in strongest])}"


def direction(measure: MeasureChange) -> str:
    """What it means that the measure rose or fell."""
    return _direction(measure, "slightly " if _is_slight(measure) else "")


def _direction(measure: MeasureChange, degree: str) -> str:
    meaning = MEANINGS[measure.name]
    text = meaning.more if measure.overall.difference.value > 0 else meaning.less
    return text.format(degree)


def _is_slight(measure: MeasureChange) -> bool:
    return abs(measure.overall.difference.value) < MEANINGS[measure.name].small


def describe(measure: MeasureChange, n_blocks: int) -> str:
    """One measure in a sentence or two."""
    meaning, change = MEANINGS[measure.name], measure.overall
    levels = f"{write(change.base.value, meaning)} before, {write(change.tuned.value, meaning)} after"
    outcome = direction(measure) if change.is_told else "over all blocks no change to be told"
    interval = write_interval(change.difference, meaning)
    return f"{meaning.title}: {levels}; {outcome} ({interval}). {_describe_blocks(measure, n_blocks)}"


def _describe_blocks(measure: MeasureChange, n_blocks: int) -> str:
    if not measure.n_blocks_told:
        return "Nor is there one in any single block." if not measure.overall.is_told else "No single block stands out."
    most = max(range(n_blocks), key=lambda index: abs(measure.blocks[index].difference.value))
    change = write_difference(measure.blocks[most].difference.value, MEANINGS[measure.name])
    but = "But a" if not measure.overall.is_told else "A"
    return f"{but} change shows in {measure.n_blocks_told} of {n_blocks} blocks, most in block {most} ({change})."


def describe_picks(picks: PickOverlap) -> list[str]:
    """How far the two models pick alike."""
    sentences = [_describe_tokens(picks), _describe_rows(picks)]
    if picks.saliency_rank_correlation is not None:
        sentences.append(
            "Places: within a row’s image tokens the ranks of the attention correlate at "
            f"{picks.saliency_rank_correlation:.2f} on average (1 would be the same order, 0 none in common)."
        )
    return sentences


def _describe_tokens(picks: PickOverlap) -> str:
    low, high = write_percent(picks.tokens.low), write_percent(picks.tokens.high)
    return (
        f"Tokens: {write_percent(picks.tokens.value)} of the tokens that the mask hides are the same in both models "
        f"(95 % interval {low} to {high}); drawn at random it would be {write_percent(picks.tokens_by_chance)}."
    )


def _describe_rows(picks: PickOverlap) -> str:
    by_chance = write_percent(picks.rows_kept / max(1, picks.n_rows))
    correlation = picks.score_rank_correlation
    ranks = "" if correlation is None else f" Over all rows the ranks of the two scores correlate at {correlation:.2f}."
    return (
        f"Rows: the best fifth by {name_form(picks.form)} has {picks.rows_kept} rows, and {picks.rows_shared} of them "
        f"are the same ({write_percent(picks.rows_shared / picks.rows_kept)}; at random {by_chance}).{ranks}"
    )


def caution(comparison: Comparison) -> str:
    """What a reader must not conclude."""
    n_figures = sum(len(measure.blocks) for measure in comparison.measures)
    return (
        f"Each 95 % interval misses the truth once in twenty times: of the {n_figures} figures by block, about "
        f"{max(1, round(n_figures / 20))} look like a change by chance alone. And attention says where a model may "
        "read, not what it uses: whether it answers better is a question for an evaluation."
    )


def write(value: float, meaning: Meaning) -> str:
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%" if meaning.is_share else f"{value:.3f} nats"


def write_difference(value: float, meaning: Meaning) -> str:
    text = f"{100 * value:+.2f} points" if meaning.is_share else f"{value:+.3f} nats"
    return text.replace("-", "−")


def write_interval(difference: Estimate, meaning: Meaning) -> str:
    low, high = (write_difference(value, meaning).rsplit(" ", 1)[0] for value in (difference.low, difference.high))
    return f"{write_difference(difference.value, meaning)}, 95 % interval {low} to {high}"


def verdict(change: Change) -> str:
    if not change.is_told:
        return _NO_CHANGE
    return "rises" if change.difference.value > 0 else "falls"


def _in_interval_widths(difference: Estimate) -> float:
    return difference.value / max(difference.high - difference.low, 1e-12)


def _join(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
