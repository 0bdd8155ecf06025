"""What a comparison says, in words. A difference whose interval holds zero is no change. No torch here."""

from dataclasses import dataclass

from delta_attnmask.inspecting.comparison import Comparison, MeasureComparison, PickOverlap, Shift
from delta_attnmask.reporting.words import join_names, name_form, write_percent

_NO_CHANGE = "no clear change"


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

    def write(self, value: float) -> str:
        return f"{100 * value:.1f}\N{NO-BREAK SPACE}%" if self.is_share else f"{value:.3f} nats"

    def write_difference(self, value: float) -> str:
        return f"{self._signed(value)} {self.unit}"

    def write_shift(self, shift: Shift) -> str:
        """A difference with its interval."""
        low, high = self._signed(shift.difference.low), self._signed(shift.difference.high)
        return f"{self.write_difference(shift.difference.value)}, 95 % interval {low} to {high}"

    @property
    def unit(self) -> str:
        return "points" if self.is_share else "nats"

    def _signed(self, value: float) -> str:
        return (f"{100 * value:+.2f}" if self.is_share else f"{value:+.3f}").replace("-", "−")


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
    clear = [measure for measure in comparison.measures if measure.overall.is_clear]
    if not clear:
        return "After tuning, attention shows no clear change"
    strongest = sorted(clear, key=lambda measure: -_in_interval_widths(measure.overall))[:3]
    if all(_is_slight(measure) for measure in clear):
        return (
            f"After tuning, attention changes only slightly: {join_names([_direction(one, '') for one in strongest])}"
        )
    return f"After tuning, {join_names([_describe_direction(one) for one in strongest])}"


def describe(measure: MeasureComparison) -> str:
    """One measure in two sentences."""
    meaning, shift = MEANINGS[measure.name], measure.overall
    levels = f"{meaning.write(shift.base.value)} before, {meaning.write(shift.tuned.value)} after"
    outcome = _describe_direction(measure) if shift.is_clear else f"over all blocks {_NO_CHANGE}"
    return f"{meaning.title}: {levels}; {outcome} ({meaning.write_shift(shift)}). {_describe_blocks(measure)}"


def describe_picks(picks: PickOverlap) -> list[str]:
    """How far the two models pick the same tokens and the same rows."""
    low, high = write_percent(picks.tokens.low), write_percent(picks.tokens.high)
    by_chance = write_percent(picks.rows_kept / max(1, picks.n_rows))
    correlation = picks.score_rank_correlation
    ranks = "" if correlation is None else f" Over all rows the ranks of the two scores correlate at {correlation:.2f}."
    tokens = (
        f"Tokens: {write_percent(picks.tokens.value)} of the tokens that the mask hides are the same in both models "
        f"(95 % interval {low} to {high}); drawn at random it would be {write_percent(picks.tokens_by_chance)}."
    )
    rows = (
        f"Rows: the best fifth by {name_form(picks.form)} has {picks.rows_kept} rows, and {picks.rows_shared} of them "
        f"are the same ({write_percent(picks.rows_shared / picks.rows_kept)}; at random {by_chance}).{ranks}"
    )
    return [tokens, rows]


def caution(comparison: Comparison) -> str:
    """What a reader must not conclude."""
    n_figures = sum(len(measure.blocks) for measure in comparison.measures)
    return (
        f"Each 95 % interval misses the truth once in twenty times: of the {n_figures} figures by block, about "
        f"{max(1, round(n_figures / 20))} look like a change by chance alone. And attention says where a model may "
        "read, not what it uses: whether it answers better is a question for an evaluation."
    )


def verdict(shift: Shift) -> str:
    if not shift.is_clear:
        return _NO_CHANGE
    return "rises" if shift.difference.value > 0 else "falls"


def _describe_direction(measure: MeasureComparison) -> str:
    return _direction(measure, "slightly " if _is_slight(measure) else "")


def _direction(measure: MeasureComparison, degree: str) -> str:
    meaning = MEANINGS[measure.name]
    return (meaning.more if measure.overall.difference.value > 0 else meaning.less).format(degree)


def _is_slight(measure: MeasureComparison) -> bool:
    return abs(measure.overall.difference.value) < MEANINGS[measure.name].small


def _describe_blocks(measure: MeasureComparison) -> str:
    is_clear, n_blocks = measure.overall.is_clear, len(measure.blocks)
    if not measure.n_clear_blocks:
        return "No single block stands out." if is_clear else "Nor is there one in any single block."
    most = max(range(n_blocks), key=lambda index: abs(measure.blocks[index].difference.value))
    change = MEANINGS[measure.name].write_difference(measure.blocks[most].difference.value)
    start = "A" if is_clear else "But a"
    return f"{start} change shows in {measure.n_clear_blocks} of {n_blocks} blocks, most in block {most} ({change})."


def _in_interval_widths(shift: Shift) -> float:
    return abs(shift.difference.value) / max(shift.difference.high - shift.difference.low, 1e-12)
