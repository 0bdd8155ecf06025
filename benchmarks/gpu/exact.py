"""Part 1: are the scores right on this device, and does anything in a batch wait, grow or break?"""

import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from tests.reference import naive_score
from torch import Tensor, nn

from benchmarks.gpu.findings import Findings, NamedStep, Place
from benchmarks.scoring.inputs import Batch, random_batch
from benchmarks.scoring.measure import matrix_rate, synchronize
from benchmarks.scoring.models import SUBJECTS, build, shallow
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.selfcheck import self_check
from delta_attnmask.modeling.vision import linear_patches
from delta_attnmask.scoring.delta import BatchScore, score_batch
from delta_attnmask.scoring.pipeline import run_halving
from delta_attnmask.settings import AttentionBackend, MaskSettings

_BLOCKS = 3  # of the models here, which have their widths
_SHAPES, _BATCHES, _ROWS = 30, 12, 64
_TINY_SHAPES, _TINY_BATCHES, _TINY_ROWS = 3, 4, 12
_GAIN = 1.5  # of random weights, so that attention is far from uniform and masks change the losses
_STEP = 7  # tokens by which samples of a batch differ
_LEFT_BYTES = 3 << 30  # beside the model, where memory is to run out
_FITS_A_CPU = 8  # rows, as if it had run out


def measure_matrix_rate(findings: Findings, place: Place) -> None:
    findings.note("matrix product, TFLOP/s", matrix_rate(place.device, place.dtype) / 1e12)


def compare_with_naive(findings: Findings, place: Place) -> None:
    """Samples of several lengths, in single precision."""
    model, batch = _shallow(place, torch.float32, gain=_GAIN)
    expected = naive_score(model, *batch, MaskSettings.paper())
    findings.check("largest delta that is compared, nats", float(expected.delta.abs().max()))
    for backend in _backends(place):
        found = _score(model, batch, backend)
        findings.check("loss beside the naive score, nats", _apart(found.loss, expected.loss))
        findings.check("delta beside the naive score, nats", _apart(found.delta, expected.delta))
        received = _apart(found.saliency, expected.saliency) / float(expected.saliency.abs().max())
        findings.check("attention received beside the naive score, relative", received)
        findings.note(f"self-check, {backend}", str(self_check(examine(model), *batch, backend)))


def compare_in_half_precision(findings: Findings, place: Place) -> None:
    model, batch = _shallow(place, torch.bfloat16, gain=_GAIN)
    plain, other = (_score(model, batch, backend) for backend in _backends(place))
    received = _apart(other.saliency, plain.saliency) / float(plain.saliency.abs().max())
    findings.check("attention received in half precision beside plain torch, relative", received)
    findings.note("loss apart, nats", _apart(other.loss, plain.loss))
    findings.note("delta apart, nats", _apart(other.delta, plain.delta))
    findings.note("self-check", str(self_check(examine(model), *batch, _backends(place)[-1])))


def compare_patches(findings: Findings, place: Place) -> None:
    """The patch embedding both ways: equal in single precision, and the time in the usual one."""
    for dtype in dict.fromkeys((torch.float32, place.dtype)):
        model, (inputs, _) = _shallow(place, dtype, n_blocks=1)
        embedding = next(module for module in model.modules() if isinstance(module, nn.Conv3d))
        patches = inputs["pixel_values"].unflatten(1, (embedding.in_channels, *embedding.kernel_size))
        with torch.no_grad():
            expected, by_convolution_s = _timed(embedding, place.device, patches)
            with linear_patches(examine(model)):
                found, by_product_s = _timed(embedding, place.device, patches)
        if dtype == torch.float32:
            relative = _apart(found, expected) / float(expected.abs().max())
            findings.check("patches by a matrix product beside the convolution, relative", relative)
        findings.note(f"{dtype}, ms", {"convolution": 1e3 * by_convolution_s, "product": 1e3 * by_product_s})


def count_waits(findings: Findings, place: Place) -> None:
    """How often the host waits for the device in one batch; where a deeper model makes it more, blocks do it."""
    waits = []
    for n_blocks in (_BLOCKS, 2 * _BLOCKS):
        model, batch = _shallow(place, place.dtype, n_blocks=n_blocks)
        _score(model, batch)
        waits.append(_waits_of(place.device, model, batch))
    findings.note("by file and line", dict(waits[0].most_common()))
    findings.note("added by file and line", dict((waits[1] - waits[0]).most_common()))
    findings.check("waits that deeper models add", waits[1].total() - waits[0].total())


def time_new_shapes(findings: Findings, place: Place) -> None:
    """The first batch of a shape beside the second one, once Triton has compiled its kernels."""
    subject = shallow(SUBJECTS[place.model], _BLOCKS)
    model = build(subject, place.device, place.dtype)
    extra_s, n_shapes = [], _TINY_SHAPES if place.is_tiny else _SHAPES
    for number in range(n_shapes):
        shorter = replace(subject, n_text=subject.n_text - number % 10)
        batch = random_batch(shorter, 1 + number // 10, 1, place.device, place.dtype)
        first_s, second_s = (_timed(_score, place.device, model, batch)[1] for _ in range(2))
        extra_s.append(first_s - second_s)
    findings.note("ms of each", [round(1e3 * one, 2) for one in extra_s])
    findings.check("ms that a new shape costs once", 1e3 * statistics.median(extra_s[n_shapes // 3 :]))


def watch_memory(findings: Findings, place: Place) -> None:
    subject = shallow(SUBJECTS[place.model], _BLOCKS)
    model = build(subject, place.device, place.dtype)
    held = []
    for number in range(_TINY_BATCHES if place.is_tiny else _BATCHES):
        _score(model, random_batch(subject, 2, 1, place.device, place.dtype, step=number % 3))
        held.append(torch.cuda.memory_allocated(place.device) if place.device.type == "cuda" else 0)
    findings.note("bytes after each batch", held)
    findings.check("bytes that memory grows a batch", (held[-1] - held[2]) / (len(held) - 3))


def run_out_of_memory(findings: Findings, place: Place) -> None:
    """A batch where there is room for a few of its rows, run as the pipeline does."""
    subject = shallow(SUBJECTS[place.model], _BLOCKS)
    model = build(subject, place.device, place.dtype)
    _score(model, random_batch(subject, 1, 1, place.device, place.dtype))
    n_rows = _TINY_ROWS if place.is_tiny else _ROWS
    done: list[int] = []
    too_large: list[int] = []

    def run(rows: list[int]) -> None:
        if place.device.type == "cpu" and len(rows) > _FITS_A_CPU:
            raise torch.OutOfMemoryError("as if")
        _score(model, random_batch(subject, len(rows), 1, place.device, place.dtype))
        done.extend(rows)

    with _little_memory(place.device):
        run_halving([*range(n_rows)], run, lambda row, error: None, lambda rows: too_large.append(len(rows)))
    findings.note("batches that were too large", too_large)
    findings.check("rows lost where memory runs out", n_rows - len(done))


def _backends(place: Place) -> list[AttentionBackend]:
    return ["plain", "triton"] if place.device.type == "cuda" else ["plain", "auto"]


def _shallow(
    place: Place, dtype: torch.dtype, n_blocks: int = _BLOCKS, gain: float | None = None
) -> tuple[nn.Module, Batch]:
    """A model and a batch for it. gain: of its weights, as they are initialised if not given."""
    subject = shallow(SUBJECTS[place.model], n_blocks)
    torch.manual_seed(0)
    model = build(subject, place.device, dtype)
    if gain is not None:
        for weight in (parameter.data for parameter in model.parameters() if parameter.ndim > 1):
            weight.normal_(0, gain * weight[0].numel() ** -0.5)
    return model, random_batch(subject, 3, 1, place.device, dtype, step=_STEP)


def _score(model: nn.Module, batch: Batch, attention: AttentionBackend = "auto") -> BatchScore:
    return score_batch(model, *batch, MaskSettings.paper(), attention=attention)


def _apart(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).abs().max())


def _timed(call: Callable[..., Any], device: torch.device, *given: Any) -> tuple[Any, float]:
    synchronize(device)
    begun = time.perf_counter()
    value = call(*given)
    synchronize(device)
    return value, time.perf_counter() - begun


def _waits_of(device: torch.device, model: nn.Module, batch: Batch) -> Counter[str]:
    """By file and line, as torch warns of them; none on a CPU."""
    if device.type != "cuda":
        return Counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            _score(model, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{found.filename}:{found.lineno}" for found in caught)


@contextmanager
def _little_memory(device: torch.device) -> Iterator[None]:
    """Let this process have little more of the GPU than it holds now."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    share = (torch.cuda.memory_allocated(device) + _LEFT_BYTES) / total
    torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


STEPS = (
    NamedStep("matrix rate", measure_matrix_rate, is_done_once=True),
    NamedStep("exact", compare_with_naive),
    NamedStep("half precision", compare_in_half_precision),
    NamedStep("patches", compare_patches, is_done_once=True),
    NamedStep("waits", count_waits),
    NamedStep("new shapes", time_new_shapes),
    NamedStep("memory growth", watch_memory),
    NamedStep("out of memory", run_out_of_memory, is_done_once=True),
)
