"""The attention kernels alone, on CUDA: `python -m benchmarks.scoring.kernels`."""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from delta_attnmask.modeling.kernels import counted_spans, fused_attend
from delta_attnmask.modeling.plain_attention import attend
from delta_attnmask.modeling.vision import packed_attention

# batch, query heads, key heads, seq, head size: the decoders of Qwen2-VL-2B and 7B and LLaVA-1.5-7B
DECODERS = [
    (1, 12, 2, 657, 128),
    (8, 12, 2, 657, 128),
    (32, 12, 2, 657, 128),
    (8, 28, 4, 657, 128),
    (8, 32, 32, 842, 128),
]
IMAGES, PATCHES, VISION_HEADS, VISION_HEAD_DIM = 8, 1564, 16, 80


def main() -> None:
    print("| what | shape | µs |\n| --- | --- | ---: |")
    for shape in DECODERS:
        for name, call in decoder_calls(*shape):
            print(f"| {name} | {shape} | {microseconds(call):.0f} |", flush=True)
    for name, call in vision_calls():
        print(f"| {name} | {IMAGES} images of {PATCHES} patches | {microseconds(call):.0f} |", flush=True)


def decoder_calls(
    batch: int, n_heads: int, n_key_heads: int, seq: int, head_dim: int
) -> Iterator[tuple[str, Callable[[], Any]]]:
    query, key, value = (
        _random(batch, seq, heads, head_dim).transpose(1, 2) for heads in (n_heads, n_key_heads, n_key_heads)
    )
    from delta_attnmask.modeling.triton_received import received_columns

    options = {"scale": head_dim**-0.5, "is_causal": True}
    weights = torch.ones(batch, 1, seq, device="cuda")
    spans = counted_spans(weights)
    _, lse = fused_attend(query, key, value, None, **options)
    yield (
        "SDPA",
        lambda: functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True),
    )
    yield "flash with log-sum-exp", lambda: fused_attend(query, key, value, None, **options)
    yield "columns, Triton", lambda: received_columns(query, key, lse, None, weights, spans, **options)
    yield "both, plain torch", lambda: attend(query, key, value, None, weights=weights, **options)


def vision_calls() -> Iterator[tuple[str, Callable[[], Any]]]:
    states = [_random(IMAGES * PATCHES, VISION_HEADS, VISION_HEAD_DIM).transpose(0, 1)[None] for _ in range(3)]
    query, key, value = states
    starts = torch.arange(0, (IMAGES + 1) * PATCHES, PATCHES, device="cuda", dtype=torch.int32)
    stacked = [part[0].unflatten(1, (IMAGES, PATCHES)).transpose(0, 1) for part in states]
    module = torch.nn.Module()

    def image_by_image() -> list[Tensor]:
        parts = zip(*(part.split(PATCHES, dim=2) for part in states), strict=True)
        return [functional.scaled_dot_product_attention(*part) for part in parts]

    def stacked_by(backend: SDPBackend) -> Tensor:
        with sdpa_kernel(backend):
            return functional.scaled_dot_product_attention(*stacked)

    yield "vision, SDPA image by image", image_by_image
    yield (
        "vision, packed flash",
        lambda: packed_attention(module, query, key, value, None, cu_seq_lens_q=starts, max_length_q=PATCHES),
    )
    yield "vision, stacked flash", lambda: stacked_by(SDPBackend.FLASH_ATTENTION)
    yield "vision, stacked cuDNN", lambda: stacked_by(SDPBackend.CUDNN_ATTENTION)


def microseconds(call: Callable[[], Any], n_repeats: int = 30) -> float:
    """Median by events, after a warm-up."""
    for _ in range(3):
        call()
    times = []
    for _ in range(n_repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return statistics.median(times)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


if __name__ == "__main__":
    main()
