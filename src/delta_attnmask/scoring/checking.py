"""The self-check of a run's model on its first rows: what it finds, what it switches off, and the warnings."""

from collections.abc import Sequence
from typing import Any

import torch

from delta_attnmask.encoding.encoder import EncodedSample
from delta_attnmask.modeling.anatomy import Anatomy
from delta_attnmask.modeling.load import LoadedModel, compile_blocks
from delta_attnmask.modeling.selfcheck import probe_labels, self_check, tolerance
from delta_attnmask.progress import print_note
from delta_attnmask.scoring.delta import loss_batch
from delta_attnmask.scoring.pipeline import Batches, is_fatal, reason_of
from delta_attnmask.settings import AttentionBackend

_ATTEMPTS = 8


class ModelCheck:
    """Checks a model once, on two short samples; batches and compiled blocks are given up where they don't hold.

    masked_block: whose output will be masked, named in the line; None for none.
    is_compiled: compile the blocks, until `close`.
    line: what was found; empty until then.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        anatomy: Anatomy,
        batches: Batches,
        attention: AttentionBackend,
        masked_block: int | None,
        is_compiled: bool = False,
    ) -> None:
        self._loaded, self._anatomy, self._batches, self._attention = loaded, anatomy, batches, attention
        self._masked_block = masked_block
        self._uncompile = compile_blocks(loaded.model) if is_compiled else None
        self._is_done = False
        self.line = ""

    def close(self) -> None:
        """Leave the blocks as they were."""
        if self._uncompile is not None:
            self._uncompile()
            self._uncompile = None

    def take_line(self) -> str:
        """What was found since the last call."""
        line, self.line = self.line, ""
        return line

    def __call__(self, samples: Sequence[EncodedSample]) -> None:
        """Check on the shortest of these samples, unless that is done.

        Samples on which the model fails are passed over: they become failed rows later. Where two samples together
        give other losses than each alone, batches are of one sample from now on. Where the model fails only with
        compiled blocks, it runs without them.
        """
        if self._is_done or not samples:
            return
        fault = self._try(samples)
        if fault and self._uncompile is not None:
            self._uncompile()
            if self._try(samples):  # it isn't the compiling
                self._uncompile = compile_blocks(self._loaded.model)
            else:
                self._uncompile = None
                print_note(f"warning: compiled blocks fail ({fault}), so the model runs uncompiled")

    def _try(self, samples: Sequence[EncodedSample]) -> str:
        """Why the model ran on none of the samples that were tried; empty where it is checked."""
        fault = ""
        shortest = sorted(samples, key=lambda sample: (sample.n_image_tokens == 0, sample.n_tokens))
        for start in range(min(_ATTEMPTS, len(shortest))):
            first, *others = shortest[start:]
            alike = [sample for sample in others if sample.inputs.keys() == first.inputs.keys()]
            try:
                difference = self._check([first, *alike[:1]])
            except Exception as error:  # a model's code may raise anything
                if is_fatal(error):
                    raise
                fault = reason_of(error)
                continue
            self._is_done = True
            if difference > tolerance(self._loaded.dtype):
                self._run_one_by_one(samples, difference)
            return ""
        return fault

    def _check(self, samples: list[EncodedSample]) -> float:
        """Check the model; by how many nats the samples' losses differ between one batch and each alone, at most."""
        batch = self._batches.collate(samples)
        self.line = str(self_check(self._anatomy, batch.inputs, batch.labels, self._attention))
        if self._masked_block is not None:
            self.line += f"; {self._anatomy.describe_block(self._masked_block)}"
        together, alone = self._losses(samples), [self._losses([sample])[0] for sample in samples]
        return max(abs(a - b) for a, b in zip(together, alone, strict=True))

    def _run_one_by_one(self, samples: Sequence[EncodedSample], difference: float) -> None:
        n_rows, n_batches, self._batches.batch_tokens = len(samples), len(self._batches.plan(samples)), 1
        self.line += f"; samples change each other in a batch, by {difference:.1e} nats, so they run one by one"
        advice = "" if self._loaded.dtype == torch.float32 else "; --dtype float32 may allow batches"
        print_note(
            "warning: this model gives a row another loss beside other rows than alone, so rows run one by one: "
            f"{n_rows} forwards instead of {n_batches} for the first {n_rows} rows, several times as slow on a GPU"
            + advice
        )

    def _losses(self, samples: list[EncodedSample]) -> list[float]:
        """Each sample's loss over tokens of all its text: few tokens' differ by rounding alone."""
        batch = self._batches.collate(samples)
        options: dict[str, Any] = {"attention": self._attention, "anatomy": self._anatomy}
        labels = probe_labels(self._anatomy, batch.inputs, batch.labels)
        losses: list[float] = loss_batch(self._loaded.model, batch.inputs, labels, **options).tolist()
        return losses
