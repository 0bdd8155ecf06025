"""What importing costs, and what is public."""

import subprocess
import sys

import delta_attnmask

SCORING_A_BATCH = """
import sys
import delta_attnmask
from tests.families import FAMILIES
model = FAMILIES["LLaVA"].build()
delta_attnmask.score_batch(model, *FAMILIES["LLaVA"].inputs(), delta_attnmask.MaskSettings.paper())
print(*(name for name in sys.modules if name.partition(".")[0] == "delta_attnmask"), sep="\\n")
"""


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_public_names() -> None:
    assert delta_attnmask.__all__ == [
        "ArtifactError",
        "AugmentationSettings",
        "BatchScore",
        "Calibration",
        "DataError",
        "DeltaAttnMask",
        "DeltaAttnMaskError",
        "DeviceError",
        "Encoder",
        "MaskSettings",
        "MaskedStateAugmentation",
        "ReasonCode",
        "RowError",
        "Scores",
        "Selection",
        "SettingsError",
        "Split",
        "TooLittleDataError",
        "UnitsFailedError",
        "UnsupportedModelError",
        "load_rows",
        "masked_states",
        "score_batch",
        "select_rows",
        "split_rows",
    ]
    assert [name for name in dir(delta_attnmask) if not name.startswith("_")] == sorted(delta_attnmask.__all__)
    for name in delta_attnmask.__all__:
        assert getattr(delta_attnmask, name).__name__ == name


def test_help_needs_neither_torch_nor_transformers() -> None:
    done = run("-X", "importtime", "-m", "delta_attnmask", "--help")
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "delta_attnmask" in imported
    assert not imported & {"torch", "torchvision", "transformers", "pyarrow"}
    assert "Score image-text conversations" in done.stdout
    for command in ("score", "select", "check"):
        assert command in done.stdout


def test_what_is_wrong_with_settings_or_data_is_told_before_torch_is_imported() -> None:
    for options in (["--data", "no.json"], ["--data", __file__, "--fraction", "2"]):
        done = run("-X", "importtime", "-m", "delta_attnmask", "score", "--model", "a/b", "--out", "run", *options)
        assert done.returncode == 2
        (message,) = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
        assert message.startswith("delta-attnmask: ")
        assert " torch\n" not in done.stderr


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(delta_attnmask, "no_such_name")


def test_scoring_a_batch_needs_few_modules() -> None:
    done = run("-c", SCORING_A_BATCH)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) <= 20, done.stdout
